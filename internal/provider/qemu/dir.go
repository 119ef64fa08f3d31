package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// Names of files in a cell's directory. Those of a machine are made by file.
const (
	stateFile = "state.json"
	lockFile  = "lock"
)

// dir is the absolute path of a cell's directory.
type dir string

func dirOf(id provider.CellID) dir { return dir(filepath.Join(id.Dir, "qemu")) }

func (d dir) path(name string) string { return filepath.Join(string(d), name) }

// file names a machine's file: `agent.pid`. QEMU is given this name as it is,
// relative to its working directory.
func file(role provider.Role, suffix string) string { return string(role) + "." + suffix }

// exists reports whether a file is there, of whatever kind.
func (d dir) exists(name string) bool {
	_, err := os.Lstat(d.path(name))
	return err == nil
}

// remove removes files that may be missing.
func (d dir) remove(names ...string) error {
	for _, name := range names {
		if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a file of the cell: %w", err)
		}
	}
	return nil
}

// makePrivate makes the directory and its parent, for the owner alone.
func (d dir) makePrivate() error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("making the cell's directory: %w", err)
	}
	// Invariant: guest.json holds keys, and whoever can open the QMP socket
	// or the link's sockets owns the cell, so nobody but the owner enters
	// (TestDirectoryIsPrivate).
	for _, path := range []string{filepath.Dir(string(d)), string(d)} {
		info, err := os.Lstat(path)
		if err != nil {
			return fmt.Errorf("checking the cell's directory: %w", err)
		}
		if !info.IsDir() {
			return fmt.Errorf("checking the cell's directory: %q is no directory; move it away", path)
		}
		if info.Mode().Perm()&0o077 != 0 {
			if err := os.Chmod(path, 0o700); err != nil {
				return fmt.Errorf("closing the cell's directory to others: %w", err)
			}
		}
	}
	return nil
}

// writePrivate replaces a file for the owner alone, wholly or not at all.
func (d dir) writePrivate(name string, data []byte) error {
	tmp, err := os.CreateTemp(string(d), "."+name+".*") // 0600
	if err != nil {
		return fmt.Errorf("writing %q: %w", d.path(name), err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), d.path(name))
	}
	if err == nil {
		err = d.sync()
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("writing %q: %w; free some space there and run the command again", d.path(name), err)
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", d.path(name), err)
	}
	return nil
}

// sync makes renames in the directory durable.
func (d dir) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// lock keeps two changing calls on one cell apart, should the caller's own lock
// not do so, and returns what releases it. The lock ends with the process.
func (d dir) lock(ctx context.Context) (release func(), err error) {
	for {
		f, err := os.OpenFile(d.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("locking the cell: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && d.isFile(lockFile, f) {
			return func() { f.Close() }, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("locking %q: %w", f.Name(), err)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, fmt.Errorf("waiting for another rootcell to finish with the cell: %w", err)
		}
	}
}

// isFile reports whether f is still what name in the directory refers to:
// Destroy removes the lock file while others wait for it.
func (d dir) isFile(name string, f *os.File) bool {
	is, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(d.path(name))
	return err == nil && os.SameFile(is, named)
}

// pause waits for d, or less when ctx ends, and then returns its error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
