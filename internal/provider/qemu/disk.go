package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// logLabel is the file system label by which the firewall's guest finds its log
// disk.
const logLabel = "rootcell-log"

// ensureAgentDisk makes the agent's disk when there is none, and grows it when
// want is larger. The agent must not run.
//
// The overlay refers to its base as agent.base, beside it: a hard link to the
// image (or a symbolic one across file systems), so that the disk stays whole
// when the image cache drops that image, and so do the kernel and initrd that
// fit its modules.
func (s *session) ensureAgentDisk(ctx context.Context, want provider.Machine) error {
	m := &s.st.Agent
	overlay := diskFile(provider.RoleAgent)
	if !s.dir.exists(overlay) {
		s.step(provider.RoleAgent, "making the agent's disk (%s)", bytesText(want.DiskBytes))
		return s.makeAgentDisk(ctx, want)
	}
	if m.Disk == nil {
		// The state was lost and the disk was not: it is kept, and what it was
		// made from is not known.
		size, _, err := imageInfo(ctx, s.dir.path(overlay))
		if err != nil {
			return err
		}
		s.setDisk(m, disk{Bytes: size})
	}
	for _, suffix := range []string{"base", "kernel"} {
		if _, err := os.Stat(s.dir.path(file(provider.RoleAgent, suffix))); err != nil {
			return fmt.Errorf("opening what the agent's disk was made from: %w; put the image back, or run `rootcell reset` for a fresh disk", err)
		}
	}
	if m.Disk.From == sourceOf(want) {
		if err := s.dir.pinBoot(provider.RoleAgent, want); err != nil {
			return err
		}
	}
	if want.DiskBytes <= m.Disk.Bytes {
		return nil
	}
	s.step(provider.RoleAgent, "growing the agent's disk (%s)", bytesText(want.DiskBytes))
	if _, err := tool(ctx, s.dir, "qemu-img", "resize", "-q", "-f", "qcow2", overlay, fmt.Sprint(want.DiskBytes)); err != nil {
		return err
	}
	s.setDisk(m, disk{From: m.Disk.From, Bytes: want.DiskBytes})
	return nil
}

func (s *session) makeAgentDisk(ctx context.Context, want provider.Machine) error {
	overlay := diskFile(provider.RoleAgent)
	base := file(provider.RoleAgent, "base")
	if err := s.dir.pin(want.Image, base); err != nil {
		return err
	}
	if err := s.dir.pinBoot(provider.RoleAgent, want); err != nil {
		return err
	}
	size, format, err := imageInfo(ctx, s.dir.path(base))
	if err != nil {
		return err
	}
	size = max(size, want.DiskBytes)
	tmp := overlay + ".new"
	if err := s.dir.remove(tmp); err != nil {
		return err
	}
	// Invariant: the base's format is written into the overlay, never guessed
	// from bytes (qemu-img refuses -b without -F since 6.1).
	if _, err := tool(ctx, s.dir, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", format, tmp, fmt.Sprint(size)); err != nil {
		return err
	}
	// First what the disk is, then the disk: an overlay that is there is complete.
	s.setDisk(&s.st.Agent, disk{From: sourceOf(want), Bytes: size})
	if err := s.save(); err != nil {
		return err
	}
	return s.dir.rename(tmp, overlay)
}

// ensureFirewallDisk makes the firewall's log disk when there is none, and takes
// the kernel and initrd of its next start.
func (s *session) ensureFirewallDisk(ctx context.Context, want provider.Machine) error {
	if err := s.dir.pinBoot(provider.RoleFirewall, want); err != nil {
		return err
	}
	name := diskFile(provider.RoleFirewall)
	if s.dir.exists(name) {
		if s.st.Firewall.Disk == nil {
			info, err := os.Stat(s.dir.path(name))
			if err != nil {
				return fmt.Errorf("looking at the firewall's log disk: %w", err)
			}
			s.setDisk(&s.st.Firewall, disk{Bytes: info.Size()})
		}
		return nil
	}
	s.step(provider.RoleFirewall, "making the firewall's log disk (%s)", bytesText(want.DiskBytes))
	tmp := name + ".new"
	f, err := os.OpenFile(s.dir.path(tmp), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("making the firewall's log disk: %w", err)
	}
	err = errors.Join(f.Truncate(want.DiskBytes), f.Close())
	if err != nil {
		return fmt.Errorf("making the firewall's log disk: %w", err)
	}
	if _, err := tool(ctx, s.dir, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-L", logLabel, tmp); err != nil {
		return err
	}
	s.setDisk(&s.st.Firewall, disk{Bytes: want.DiskBytes})
	if err := s.save(); err != nil {
		return err
	}
	return s.dir.rename(tmp, name)
}

// setDisk notes what a machine's disk is. The other machine's goroutine may be
// saving the state meanwhile.
func (s *session) setDisk(m *machine, d disk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.Disk = &d
}

func (d dir) rename(from, to string) error {
	err := os.Rename(d.path(from), d.path(to))
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		return fmt.Errorf("putting %q in place: %w", d.path(to), err)
	}
	return nil
}

// pinBoot takes what a machine boots into the cell's directory.
func (d dir) pinBoot(role provider.Role, want provider.Machine) error {
	if err := d.pin(want.Kernel, file(role, "kernel")); err != nil {
		return err
	}
	if want.Initrd == "" {
		return d.remove(file(role, "initrd"))
	}
	return d.pin(want.Initrd, file(role, "initrd"))
}

// pin makes name in the directory the same file as path.
func (d dir) pin(path, name string) error {
	from, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("taking a file of the image: %w; build the image again with `rootcell image build`", err)
	}
	if to, err := os.Stat(d.path(name)); err == nil && os.SameFile(from, to) {
		return nil
	}
	tmp := name + ".new"
	if err := d.remove(tmp); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path) // link(2) would link to the symbolic link itself
	if err == nil && os.Link(real, d.path(tmp)) != nil {
		// Another file system, or another owner's file (protected_hardlinks).
		err = os.Symlink(real, d.path(tmp))
	}
	if err != nil {
		return fmt.Errorf("taking %q into the cell's directory: %w", path, err)
	}
	return d.rename(tmp, name)
}

// imageInfo asks for the virtual size and the format of a disk image.
func imageInfo(ctx context.Context, path string) (size int64, format string, err error) {
	format, err = imageFormat(path)
	if err != nil {
		return 0, "", err
	}
	out, err := tool(ctx, "", "qemu-img", "info", "-f", format, "--force-share", "--output=json", path)
	if err != nil {
		return 0, "", err
	}
	var info struct {
		VirtualSize int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return 0, "", fmt.Errorf("reading what qemu-img says of %q: %w", path, err)
	}
	return info.VirtualSize, format, nil
}

// imageFormat tells qcow2 from raw by the first bytes. It is used on images that
// rootcell built and no guest has written to.
func imageFormat(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading the image: %w", err)
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil {
		return "", fmt.Errorf("reading the image %q: %w; build it again with `rootcell image build`", path, err)
	}
	if string(magic[:]) == "QFI\xfb" {
		return "qcow2", nil
	}
	return "raw", nil
}

// sourceOf is what a disk made for want would be made from.
func sourceOf(want provider.Machine) source { return source{Image: want.Image, Kernel: want.Kernel} }

// tool runs a program in the cell's directory and returns what it prints.
func tool(ctx context.Context, d dir, name string, args ...string) ([]byte, error) {
	path, err := findTool(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = string(d)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("running %q: %w", name, ctx.Err())
		}
		lines := printableLines(complaint.Bytes())
		return nil, fmt.Errorf("running %q: %w: %s", name, err, strings.Join(lines[max(0, len(lines)-2):], " / "))
	}
	return out.Bytes(), nil
}

// findTool finds a program on PATH or where systems keep those that an ordinary
// user's PATH leaves out.
func findTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/opt/homebrew/opt/e2fsprogs/sbin", "/usr/local/opt/e2fsprogs/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("looking for %q: it is not installed; install it with `%s`", name, installCommand(packageFor(name)))
}

// packageFor names the package that a program comes in.
func packageFor(program string) string {
	brew := map[string]string{"qemu-system-x86_64": "qemu", "qemu-system-aarch64": "qemu", "qemu-img": "qemu", "mke2fs": "e2fsprogs"}
	debian := map[string]string{"qemu-system-x86_64": "qemu-system-x86", "qemu-system-aarch64": "qemu-system-arm", "qemu-img": "qemu-utils", "mke2fs": "e2fsprogs"}
	if runtime.GOOS == "darwin" {
		return brew[program]
	}
	return debian[program]
}

// installCommand is what a user runs to install packages.
func installCommand(packages ...string) string {
	names := strings.Join(packages, " ")
	switch {
	case runtime.GOOS == "darwin":
		return "brew install " + names
	case os.Geteuid() == 0:
		return "apt-get install -y " + names
	}
	return "sudo apt-get install -y " + names
}

// bytesText is a size for people.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
