package cell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const lockFile = "lock"

// lockPoll is how often a waiting command tries again. A blocking flock could
// not be given up when the context ends.
const lockPoll = 50 * time.Millisecond

// Holder is what the holder of a lock wrote about itself. It is only for
// messages: who holds the lock is the kernel's business.
type Holder struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

func (h Holder) String() string {
	if h.PID == 0 {
		return "another rootcell command"
	}
	return fmt.Sprintf("`%s` (pid %d, since %s)", h.Command, h.PID, h.Since.Local().Format(time.TimeOnly))
}

// LockOptions says how to take a lock.
type LockOptions struct {
	// Command is written into the lock for whoever has to wait.
	Command string
	// NoWait fails instead of waiting.
	NoWait bool
	// Waiting, when set, is called once before the wait begins.
	Waiting func(Holder)
}

// Lock is an exclusive lock between processes.
type Lock struct{ f *os.File }

// acquire takes the lock file in dir, which must exist. The lock ends with
// Release or with the process; what a dead process left in the file means
// nothing.
func acquire(ctx context.Context, dir string, o LockOptions) (*Lock, error) {
	path := filepath.Join(dir, lockFile)
	// O_CLOEXEC (which os.OpenFile sets) keeps the lock out of the machines'
	// processes, which outlive this one.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, explainWrite("opening lock", path, err)
	}
	told := false
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("locking %q: %w", path, err)
		}
		holder := readHolder(f)
		if o.NoWait {
			f.Close()
			return nil, fmt.Errorf("instance %q is in use by %s; run the command again when that is done, or without --no-wait", filepath.Base(dir), holder)
		}
		if !told && o.Waiting != nil {
			o.Waiting(holder)
			told = true
		}
		timer := time.NewTimer(lockPoll)
		select {
		case <-ctx.Done():
			timer.Stop()
			f.Close()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
	note, err := json.Marshal(Holder{PID: os.Getpid(), Command: o.Command, Since: time.Now().UTC().Truncate(time.Second)})
	if err == nil {
		// A full disk must not stop a command that would free space: the
		// note is only for messages.
		if f.Truncate(0) == nil {
			_, _ = f.WriteAt(append(note, '\n'), 0)
		}
	}
	return &Lock{f: f}, nil
}

// Release gives the lock up. The file stays: removing it would let two
// processes hold "the" lock on two files.
func (l *Lock) Release() {
	if l == nil || l.f == nil {
		return
	}
	_ = l.f.Truncate(0)
	_ = l.f.Close()
	l.f = nil
}

func readHolder(f *os.File) Holder {
	buf := make([]byte, 4096)
	n, _ := f.ReadAt(buf, 0)
	var h Holder
	if json.Unmarshal(buf[:n], &h) != nil {
		return Holder{}
	}
	return h
}
