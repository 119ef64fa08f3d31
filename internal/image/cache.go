package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The parts of names in a cache directory: complete entries, and directories
// in which one is being made.
const (
	rootPrefix   = "root-"
	initrdPrefix = "initrd-"
	partSuffix   = ".part"
	lockName     = "lock"
	lockPoll     = 250 * time.Millisecond
)

// errNoSpace is what the kernel says of a full disk.
var errNoSpace = syscall.ENOSPC

// cache is a locked cache directory. Entries are directories that appear
// complete, by a rename.
type cache struct {
	dir  string
	lock *os.File
}

// openCache locks dir, making it first. waiting is called once when another
// process has it.
func openCache(ctx context.Context, dir string, waiting func()) (*cache, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the image cache: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the image cache's lock: %w", err)
	}
	for first := true; ; first = false {
		// The kernel drops the lock with its holder, killed or not.
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return &cache{dir: dir, lock: lock}, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			lock.Close()
			return nil, fmt.Errorf("locking the image cache %q: %w", dir, err)
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			lock.Close()
			return nil, fmt.Errorf("waiting for another image build: %w", ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

func (c *cache) close() { c.lock.Close() }

// entry returns the directory of a complete entry.
func (c *cache) entry(name string) (string, bool) {
	dir := filepath.Join(c.dir, name)
	info, err := os.Stat(dir)
	return dir, err == nil && info.IsDir()
}

// make builds an entry in a directory of its own and puts it in place when it
// is complete. What an earlier attempt left there is found again.
func (c *cache) make(name string, build func(dir string) error) (string, error) {
	part := filepath.Join(c.dir, name+partSuffix)
	if err := os.MkdirAll(part, 0o755); err != nil {
		return "", fmt.Errorf("making %q: %w", part, err)
	}
	if err := build(part); err != nil {
		return "", err
	}
	if err := syncDir(part); err != nil {
		return "", err
	}
	dir := filepath.Join(c.dir, name)
	if err := os.Rename(part, dir); err != nil {
		return "", fmt.Errorf("completing %q: %w", name, err)
	}
	return dir, nil
}

// syncDir makes the files of dir durable, so that a crash of the host leaves no
// complete name over half a file.
func syncDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("syncing %q: %w", dir, err)
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		f, err := os.Open(filepath.Join(dir, entry.Name()))
		if err != nil {
			return fmt.Errorf("syncing %q: %w", entry.Name(), err)
		}
		err = f.Sync()
		f.Close()
		if err != nil {
			return fmt.Errorf("syncing %q: %w", entry.Name(), err)
		}
	}
	return nil
}

// Entry is one part of a cache as `rootcell image list` shows it.
type Entry struct {
	Name    string    `json:"name"`
	Bytes   int64     `json:"bytes"` // allocated on disk
	Made    time.Time `json:"made"`
	Partial bool      `json:"partial"` // left by a build that was interrupted
}

// List returns what a cache holds, by name. A cache that is not there is empty.
func List(dir string) ([]Entry, error) {
	found, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the image cache: %w", err)
	}
	var entries []Entry
	for _, f := range found {
		name := f.Name()
		if !f.IsDir() || (!strings.HasPrefix(name, rootPrefix) && !strings.HasPrefix(name, initrdPrefix)) {
			continue
		}
		info, err := f.Info()
		if err != nil {
			continue // gone meanwhile
		}
		entries = append(entries, Entry{
			Name: name, Made: info.ModTime(), Partial: strings.HasSuffix(name, partSuffix),
			Bytes: allocated(filepath.Join(dir, name)),
		})
	}
	return entries, nil
}

// Prune removes every entry that none of keep, the files of sets in use, lies
// in, and says what it removed. It waits for a build that is running.
func Prune(ctx context.Context, dir string, keep []string) ([]Entry, error) {
	c, err := openCache(ctx, dir, func() {})
	if err != nil {
		return nil, err
	}
	defer c.close()
	entries, err := List(dir)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, file := range keep {
		used[filepath.Dir(filepath.Clean(file))] = true
	}
	var removed []Entry
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name)
		if used[path] {
			continue
		}
		if err := removeTree(ctx, path); err != nil {
			return removed, fmt.Errorf("removing %q: %w", path, err)
		}
		removed = append(removed, entry)
	}
	return removed, nil
}

// allocated is the space that the files below dir take.
func allocated(dir string) int64 {
	var sum int64
	// An unreadable part counts as nothing.
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // see above
		}
		if info, err := entry.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += stat.Blocks * 512
			}
		}
		return nil
	})
	return sum
}
