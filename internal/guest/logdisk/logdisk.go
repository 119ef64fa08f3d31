//go:build linux

// Package logdisk mounts the small disk that keeps the firewall's audit log
// across restarts. It makes the file system on an empty disk, repairs a damaged
// one, and never touches a disk that holds something else.
package logdisk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

const (
	superblockAt = 1024
	magicAt      = 0x38 // little-endian 0xEF53
	stateAt      = 0x3a // bit 1: errors were found
	labelAt      = 0x78
	labelLen     = 16
	magicExt     = 0xef53
	stateErrors  = 0x2
	blankProbe   = 64 << 10 // a disk whose first bytes are zero holds nothing
)

// Content is what a disk holds.
type Content int

// The kinds of content that are told apart.
const (
	Foreign Content = iota // something that is not ours
	Blank
	Ours        // the log's file system
	OursDamaged // the same, marked as having errors
)

// Inspect tells what disk holds, by its first bytes.
func Inspect(disk io.ReaderAt) (Content, error) {
	head := make([]byte, blankProbe)
	n, err := disk.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Foreign, fmt.Errorf("reading the log disk: %w", err)
	}
	head = head[:n]
	if len(head) < superblockAt+256 {
		return Foreign, nil
	}
	if len(bytes.Trim(head, "\x00")) == 0 {
		return Blank, nil
	}
	super := head[superblockAt:]
	label := string(bytes.TrimRight(super[labelAt:labelAt+labelLen], "\x00"))
	if binary.LittleEndian.Uint16(super[magicAt:]) != magicExt || label != guestcfg.LogDiskLabel {
		return Foreign, nil
	}
	if binary.LittleEndian.Uint16(super[stateAt:])&stateErrors != 0 {
		return OursDamaged, nil
	}
	return Ours, nil
}

// Damaged tells whether an ext4 file system is marked as having errors. What is
// not ext4 is not damaged.
func Damaged(disk io.ReaderAt) bool {
	super := make([]byte, 256)
	if _, err := disk.ReadAt(super, superblockAt); err != nil {
		return false
	}
	return binary.LittleEndian.Uint16(super[magicAt:]) == magicExt &&
		binary.LittleEndian.Uint16(super[stateAt:])&stateErrors != 0
}

// Run runs a program to its end. It is supervise.Set.Run in a guest.
type Run func(*exec.Cmd) error

// Mount mounts the log disk on dir. The error says why it could not, and then
// dir is what it was.
func Mount(ctx context.Context, run Run, dir string) error {
	disk, content, err := find()
	if err != nil {
		return err
	}
	switch content {
	case Blank:
		if err := format(ctx, run, disk); err != nil {
			return err
		}
	case OursDamaged:
		if err := Repair(ctx, run, disk); err != nil {
			return err
		}
	}
	err = mount(disk, dir)
	if err == nil || content == Blank {
		return err
	}
	// The kernel replays the journal by itself; what it refuses has to be
	// checked, and what cannot be repaired is made anew: the log of a firewall
	// is worth less than a firewall that logs.
	if err := Repair(ctx, run, disk); err == nil {
		if err := mount(disk, dir); err == nil {
			return nil
		}
	}
	if err := format(ctx, run, disk); err != nil {
		return err
	}
	return mount(disk, dir)
}

// find returns the first virtio disk that is blank or ours.
func find() (string, Content, error) {
	disks, err := filepath.Glob("/dev/vd[a-z]")
	if err != nil || len(disks) == 0 {
		return "", Foreign, errors.New("finding the log disk: the machine has no disk")
	}
	for _, disk := range disks {
		f, err := os.Open(disk)
		if err != nil {
			return "", Foreign, fmt.Errorf("opening the log disk: %w", err)
		}
		content, err := Inspect(f)
		f.Close()
		if err != nil {
			return "", Foreign, err
		}
		if content != Foreign {
			return disk, content, nil
		}
	}
	return "", Foreign, fmt.Errorf("finding the log disk: none of %q is blank or labelled %q", disks, guestcfg.LogDiskLabel)
}

func mount(disk, dir string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	if err := unix.Mount(disk, dir, "ext4", flags, "errors=remount-ro"); err != nil {
		return fmt.Errorf("mounting log disk %q: %w", disk, err)
	}
	return nil
}

func format(ctx context.Context, run Run, disk string) error {
	return tool(ctx, run, "/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-m", "1", "-L", guestcfg.LogDiskLabel,
		"-E", "lazy_itable_init=1,lazy_journal_init=1", disk)
}

// Repair runs e2fsck on disk, answering yes to everything.
func Repair(ctx context.Context, run Run, disk string) error {
	return tool(ctx, run, "/sbin/e2fsck", "-f", "-y", disk)
}

func tool(ctx context.Context, run Run, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	err := run(cmd)
	var exit *exec.ExitError
	// e2fsck: 1 and 2 mean that errors were corrected.
	if errors.As(err, &exit) && filepath.Base(name) == "e2fsck" && exit.ExitCode() < 4 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("running %s on %q: %w: %s", filepath.Base(name), args[len(args)-1], err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}
