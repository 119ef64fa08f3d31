//go:build linux

// Package agentinit is /init of the agent guest's small initramfs: it mounts
// the root disk, grows and if need be repairs it, writes the host's
// configuration into it, and becomes the distribution's own init.
package agentinit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/guest/agentroot"
	"github.com/rootcell-ai/rootcell/internal/guest/logdisk"
	"github.com/rootcell-ai/rootcell/internal/guest/netup"
	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

const (
	rootDisk    = "/dev/vda"
	newRoot     = "/sysroot"
	systemInit  = "/usr/lib/systemd/systemd"
	diskTimeout = 20 * time.Second
	cardTimeout = 10 * time.Second
	guestBinary = "usr/local/bin/rootcell-guest"

	// ext4IocResizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64).
	ext4IocResizeFS = 0x40086610
)

// Run prepares the root disk and replaces this process by its init. It returns
// only on error.
func Run(ctx context.Context, cfg guestcfg.Config, log *slog.Logger) error {
	if err := mountRoot(ctx, log); err != nil {
		return err
	}
	if err := grow(rootDisk, newRoot); err != nil {
		// A small disk is a nuisance, not a reason to have none.
		log.Warn("growing the root file system", "err", err)
	}
	if err := agentroot.Apply(newRoot, cfg); err != nil {
		// The agent's own root may have made a mess of its disk. What could be
		// written was; how far that carries, the host sees.
		log.Warn("configuring the agent; `rootcell reset` starts with a fresh disk", "err", err)
	}
	if err := install("/init", guestBinary); err != nil {
		return err
	}
	// The network is complete before the distribution starts: nothing there has
	// to wait for it.
	if err := netup.Apply("/proc/sys", netup.AgentSettings()); err != nil {
		return err
	}
	if err := netup.Prepare(cfg.Network, cardTimeout); err != nil {
		return err
	}
	if err := netup.Up(cfg.Network); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	log.Info("root disk ready")
	return switchRoot()
}

func mountRoot(ctx context.Context, log *slog.Logger) error {
	if err := awaitDisk(rootDisk, diskTimeout); err != nil {
		return err
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return fmt.Errorf("making %q: %w", newRoot, err)
	}
	disk, err := os.Open(rootDisk)
	if err != nil {
		return fmt.Errorf("opening the root disk: %w", err)
	}
	damaged := logdisk.Damaged(disk)
	disk.Close()
	mount := func() error { return unix.Mount(rootDisk, newRoot, "ext4", unix.MS_NOATIME, "") }
	if !damaged {
		err := mount()
		if err == nil {
			return nil
		}
		log.Warn("mounting the root disk; repairing it", "err", err)
	}
	if err := logdisk.Repair(ctx, (*exec.Cmd).Run, rootDisk); err != nil {
		return fmt.Errorf("repairing the root disk: %w; `rootcell reset` starts with a fresh one", err)
	}
	if err := mount(); err != nil {
		return fmt.Errorf("mounting the root disk: %w; `rootcell reset` starts with a fresh one", err)
	}
	return nil
}

func awaitDisk(name string, timeout time.Duration) error {
	for deadline := time.Now().Add(timeout); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(name); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waiting for the root disk %q: it did not appear", name)
		}
	}
}

// grow makes the mounted file system as large as its disk, by the kernel's own
// online resize. Where it is that large already, nothing happens.
func grow(disk, mountPoint string) error {
	f, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("measuring %q: %w", disk, err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(mountPoint, &fs); err != nil {
		return fmt.Errorf("measuring %q: %w", mountPoint, err)
	}
	blocks := uint64(size) / uint64(fs.Bsize)
	dir, err := os.Open(mountPoint)
	if err != nil {
		return err
	}
	defer dir.Close()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), ext4IocResizeFS, uintptr(unsafe.Pointer(&blocks)))
	if errno != 0 {
		return fmt.Errorf("resizing to %d blocks: %w", blocks, errno)
	}
	return nil
}

// install copies the initramfs's binary into the root when it differs, so that
// a newer rootcell brings its own without a new disk.
func install(source, target string) error {
	text, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("reading %q: %w", source, err)
	}
	return agentroot.InstallProgram(newRoot, target, text)
}

// switchRoot makes newRoot the root of the file system and executes its init.
func switchRoot() error {
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		target := filepath.Join(newRoot, dir)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return fmt.Errorf("making %q: %w", target, err)
		}
		if err := unix.Mount(dir, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving %q: %w", dir, err)
		}
	}
	// The initramfs is memory: what stays in it is lost to the guest.
	for _, name := range []string{"/lib/modules", "/usr", "/sbin", "/init"} {
		if err := os.RemoveAll(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("emptying the initramfs: %w", err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return fmt.Errorf("entering the root disk: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root disk: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("entering the root: %w", err)
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=linux"}
	return fmt.Errorf("executing %q: %w", systemInit, unix.Exec(systemInit, []string{systemInit}, env))
}
