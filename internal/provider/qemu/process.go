package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// holder returns the id of the process that is a machine, or 0 when there is none.
//
// Invariant: a process is taken for the machine only while it holds the lock on
// this pid file, in a directory that nobody else can enter, as the kernel says
// (TestStalePidIsNotOurs). The number written in the file is not looked at.
func (d dir) holder(role provider.Role) (int, error) {
	f, err := os.OpenFile(d.path(file(role, "pid")), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("looking for the %s's process: %w", role, err)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("looking for the %s's process: %w", role, err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	if lock.Pid <= 0 {
		return 0, fmt.Errorf("looking for the %s's process: %q is locked by a process that is not visible from here; run rootcell where the cell was started", role, f.Name())
	}
	return int(lock.Pid), nil
}

// spawn starts QEMU in the cell's directory, in a session of its own, with its
// messages going to the machine's log file. exited is closed when it ends while
// this process lives.
func (d dir) spawn(role provider.Role, binary string, args []string) (exited <-chan struct{}, err error) {
	log, err := os.OpenFile(d.path(file(role, "log")), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting the %s: %w", role, err)
	}
	defer log.Close()
	// No context: the machine must outlive this command. No inherited
	// environment beyond what a program needs: secrets of the caller's have no
	// business in a process that the guest may break into.
	cmd := exec.Command(binary, args...)
	cmd.Dir = string(d)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the %s: %w", role, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // its messages are in the log
	}()
	return done, nil
}

// complaint is the last line that QEMU wrote to its log, without its own name.
func (d dir) complaint(role provider.Role) string {
	data, err := readTail(d.path(file(role, "log")), 4096)
	if err != nil {
		return ""
	}
	lines := printableLines(data)
	if len(lines) == 0 {
		return ""
	}
	last := lines[len(lines)-1]
	if name, rest, ok := strings.Cut(last, ": "); ok && strings.HasPrefix(name, "qemu") {
		last = rest
	}
	return last
}

// kill ends a machine's process at once and waits until it is gone.
func (d dir) kill(ctx context.Context, role provider.Role) error {
	for {
		pid, err := d.holder(role)
		if err != nil || pid == 0 {
			return err
		}
		// FindProcess holds on to this very process (a pidfd on Linux); it is
		// still the machine if it has the lock after that.
		proc, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		again, err := d.holder(role)
		if err == nil && again == pid {
			err = proc.Kill()
		}
		_ = proc.Release()
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("ending the %s's process %d: %w", role, pid, err)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("waiting for the %s's process %d to end: %w", role, pid, err)
		}
	}
}

// awaitEnd waits until a machine has no process. It reports false when limit
// passed or ctx ended before.
func (d dir) awaitEnd(ctx context.Context, role provider.Role, limit time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		pid, err := d.holder(role)
		if err != nil || pid == 0 {
			return err == nil, err
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return false, nil
		}
	}
}
