//go:build linux

// Package machine is what an init does with the machine itself: kernel
// filesystems, modules, the firmware's configuration document, the console, the
// power button and switching off.
package machine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

// Mount is one filesystem to mount.
type Mount struct {
	Source, Target, Type string
	Flags                uintptr
	Data                 string
}

// KernelMounts are what every init needs first, in order.
func KernelMounts() []Mount {
	const nodev = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	return []Mount{
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"proc", "/proc", "proc", nodev, ""},
		{"sysfs", "/sys", "sysfs", nodev, ""},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	}
}

// MountAll mounts each of mounts, making its directory first. What is mounted
// there already counts as done.
func MountAll(mounts []Mount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.Target, 0o755); err != nil {
			return fmt.Errorf("making mount point %q: %w", m.Target, err)
		}
		if err := unix.Mount(m.Source, m.Target, m.Type, m.Flags, m.Data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mounting %s on %q: %w", m.Type, m.Target, err)
		}
	}
	return nil
}

// Console opens the kernel's console for writing, or /dev/null when there is
// none.
func Console() *os.File {
	for _, name := range []string{"/dev/console", os.DevNull} {
		if f, err := os.OpenFile(name, os.O_WRONLY|unix.O_NOCTTY, 0); err == nil {
			return f
		}
	}
	return os.Stderr
}

// LoadModules loads the kernel modules that list names, one path a line, in
// that order: the image's builder has put dependencies first. A module that is
// loaded already, or whose device this machine lacks, is no error; other
// failures are logged, and what needs the module reports its own.
func LoadModules(list string, log *slog.Logger) error {
	text, err := os.ReadFile(list)
	if err != nil {
		return fmt.Errorf("reading module list: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		path := strings.TrimSpace(lines.Text())
		if path == "" {
			continue
		}
		if err := loadModule(path); err != nil {
			log.Warn("loading kernel module", "module", filepath.Base(path), "err", err)
		}
	}
	return lines.Err()
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// ReadConfig reads the guest's document from the firmware configuration device.
func ReadConfig() (guestcfg.Config, error) {
	path := filepath.Join("/sys/firmware/qemu_fw_cfg/by_name", guestcfg.FirmwareName, "raw")
	text, err := os.ReadFile(path)
	if err != nil {
		return guestcfg.Config{}, fmt.Errorf("reading guest configuration: %w", err)
	}
	return guestcfg.Decode(text)
}

// PowerOff writes everything to disk and switches the machine off. It returns
// only when the kernel refuses.
func PowerOff() error {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		return fmt.Errorf("switching off: %w", err)
	}
	return nil
}
