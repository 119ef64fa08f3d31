package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The files of a root entry.
const (
	kernelName     = "vmlinuz"
	agentImageName = "agent.ext4"
	bundleName     = "ca-certificates.crt"
	modulesDir     = "modules" // with the lists agent.load and firewall.load
	toolsDir       = "tools"   // a small root with the programs' and libraries' paths
)

// Fixed values make two builds from the same packages the same.
const (
	epoch          = 1767225600 // 2026-01-01T00:00:00Z; file times are not later
	fileSystemID   = "726f6f74-6365-4c6c-8000-000000000001"
	fileSystemSeed = "726f6f74-6365-4c6c-8000-000000000002"
)

// needBytes is what a build needs of free disk, the finished root included.
const needBytes = 3 << 30

// slackBytes is the room in a fresh agent image; the guest grows its file
// system to its disk at boot.
const slackBytes = 256 << 20

// buildRoot makes a root entry in dir.
func (o Options) buildRoot(ctx context.Context, c *cache, key, dir string) error {
	if err := checkSpace(dir); err != nil {
		return err
	}
	tarball, tree := filepath.Join(dir, "root.tar"), filepath.Join(dir, "root")
	if _, err := os.Stat(tarball); err != nil {
		err := o.step("installing Debian "+o.Suite+" ("+o.Arch+") packages", tarball, func() error { return o.bootstrap(ctx, tarball) })
		if err != nil {
			return err
		}
	}
	image := filepath.Join(dir, agentImageName)
	err := o.step("writing the agent's disk", image, func() error {
		if err := removeTree(ctx, tree); err != nil {
			return fmt.Errorf("clearing %q: %w", tree, err)
		}
		if err := os.Mkdir(tree, 0o755); err != nil {
			return fmt.Errorf("making %q: %w", tree, err)
		}
		if err := asRoot(ctx, "tar", "--numeric-owner", "--extract", "--file", tarball, "--directory", tree, "--exclude=./dev/*"); err != nil {
			return fmt.Errorf("unpacking the Debian root: %w", err)
		}
		if err := o.finishTree(tree, dir); err != nil {
			return err
		}
		return makeFileSystem(ctx, tree, image)
	})
	if err != nil {
		return err
	}
	if err := removeTree(ctx, tree); err != nil {
		return fmt.Errorf("clearing %q: %w", tree, err)
	}
	if err := os.Remove(tarball); err != nil {
		return fmt.Errorf("clearing %q: %w", tarball, err)
	}
	return nil
}

// bootstrap installs the packages and leaves the root as a tar file, which has
// its name only when it is complete.
func (o Options) bootstrap(ctx context.Context, tarball string) error {
	// The kernel comes unpacked rather than installed: its package's scripts
	// would build an initramfs that nothing uses.
	kernel := `chroot "$1" sh -c 'set -e; cd /var/tmp; apt-get -q download "$(apt-cache depends ` + kernelPackage(o.Arch) +
		` | sed -n "s/^ *Depends: \(linux-image-[^ ]*\)$/\1/p" | head -n 1)"; dpkg-deb -x linux-image-*.deb /var/tmp/kernel; rm linux-image-*.deb'`
	// Modules are below lib in bookworm's packages; in trixie's they are below usr/lib and compressed, which the loader in
	// the initramfs would have to undo at every boot.
	move := `mv "$1"/var/tmp/kernel/boot/vmlinuz-* "$1"/boot/vmlinuz && mkdir -p "$1"/usr/lib/modules && ` +
		`find "$1"/var/tmp/kernel -path "*/lib/modules/*" -prune -exec mv -t "$1"/usr/lib/modules/ "{}" + && rm -r "$1"/var/tmp/kernel && ` +
		`chroot "$1" find /usr/lib/modules -name "*.ko.xz" -exec unxz "{}" + && ` +
		`for m in "$1"/usr/lib/modules/*; do chroot "$1" depmod "$(basename "$m")"; done`
	args := []string{
		"--variant=minbase", "--format=tar", "--architectures=" + o.Arch, "--include=" + strings.Join(agentPackages, ","),
		`--aptopt=APT::Install-Recommends "false"`, `--aptopt=Acquire::Languages "none"`, `--aptopt=Acquire::Retries "3"`,
		"--customize-hook=" + kernel, "--customize-hook=" + move,
	}
	for _, exclude := range excludes {
		args = append(args, "--dpkgopt="+exclude)
	}
	if os.Geteuid() != 0 {
		args = append(args, "--mode=unshare")
	}
	partial := tarball + ".tmp"
	args = append(args, o.Suite, partial)
	cmd := command(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.Itoa(epoch), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	if err := run(cmd); err != nil {
		return fmt.Errorf("installing Debian %s: %w", o.Suite, err)
	}
	if err := os.Rename(partial, tarball); err != nil {
		return fmt.Errorf("completing the Debian root: %w", err)
	}
	return nil
}

// makeFileSystem writes tree as a raw ext4 image, without a loop device.
func makeFileSystem(ctx context.Context, tree, image string) error {
	size := allocated(tree)*11/10 + slackBytes
	size -= size % (4 << 20)
	if err := os.Remove(image); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clearing %q: %w", image, err)
	}
	f, err := os.OpenFile(image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("making %q: %w", image, err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return fmt.Errorf("sizing %q: %w", image, err)
	}
	stamp := strconv.Itoa(epoch)
	err = asRoot(ctx, "env", "SOURCE_DATE_EPOCH="+stamp, "E2FSPROGS_FAKE_TIME="+stamp,
		"mke2fs", "-q", "-F", "-t", "ext4", "-L", "rootcell-agent", "-U", fileSystemID, "-m", "1",
		"-E", "hash_seed="+fileSystemSeed+",root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1",
		"-d", tree, image)
	if err != nil {
		return fmt.Errorf("writing the agent's file system: %w", err)
	}
	return nil
}

// asRoot runs a program as root, or as root of a user namespace that maps the
// subordinate ids, where the caller is an ordinary user.
func asRoot(ctx context.Context, name string, args ...string) error {
	argv := append([]string{name}, args...)
	if os.Geteuid() != 0 {
		argv = append([]string{"unshare", "--map-root-user", "--map-auto", "--"}, argv...)
	}
	return run(command(ctx, argv[0], argv[1:]...))
}

// removeTree removes a directory that may hold files of subordinate ids.
func removeTree(ctx context.Context, dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	return asRoot(ctx, "rm", "-rf", "--", dir)
}

// command ends with its own children when ctx does, and may clean up first.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

// run runs cmd; the error holds the end of what it printed.
func run(cmd *exec.Cmd) error {
	var output tail
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Args[0]), err, output.lines())
}

// tail keeps the last part of what is written to it.
type tail struct{ buf bytes.Buffer }

const tailBytes = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if extra := t.buf.Len() - tailBytes; extra > 0 {
		t.buf.Next(extra)
	}
	return len(p), nil
}

// lines are the last few lines, errors first where the program marked them.
func (t *tail) lines() string {
	lines := strings.Split(strings.TrimSpace(t.buf.String()), "\n")
	if len(lines) > 8 {
		lines = lines[len(lines)-8:]
	}
	return strings.Join(lines, " | ")
}

// checkSpace refuses a build that would end with a full disk.
func checkSpace(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("measuring free space of %q: %w", dir, err)
	}
	if free := int64(fs.Bavail) * int64(fs.Bsize); free < needBytes { //nolint:unconvert // differs between systems
		return fmt.Errorf("building images in %q: %d MiB are free: %w", dir, free>>20, errNoSpace)
	}
	return nil
}

func copyFile(source, target string, mode os.FileMode) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(target, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
