package cell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// makeDir makes a private directory with its parents, or closes an existing
// one to group and others.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return explainWrite("creating directory", dir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("checking directory %q: %w", dir, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("closing directory %q to other users: %w; run chmod 700 on it as its owner", dir, err)
		}
	}
	return nil
}

// unfinished is in the names of files that will replace others.
const unfinished = ".new-"

// writeFile replaces path as a whole: whoever reads it, now or after a crash,
// sees the old content or the new one.
func writeFile(path string, content []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+unfinished+"*")
	if err != nil {
		return explainWrite("writing", path, err)
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
			err = explainWrite("writing", path, err)
		}
	}()
	if err := tmp.Chmod(mode); err != nil {
		return err
	}
	if _, err := tmp.Write(content); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// createFile is writeFile for a file that must not exist; it never replaces
// one that does. It reports whether it wrote.
func createFile(path string, content []byte, mode fs.FileMode) (bool, error) {
	if _, err := os.Lstat(path); err == nil {
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("looking for %q: %w", path, err)
	}
	return true, writeFile(path, content, mode)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some filesystems cannot sync a directory and say EINVAL; on those the
	// rename is as durable as it gets.
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// explainWrite adds what to do to the failures of writing that a user meets.
func explainWrite(doing, path string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s %q: %w; free some space on that filesystem and run the command again", doing, path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s %q: %w; make it yours (chown) or set ROOTCELL_STATE_DIR", doing, path, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s %q: %w; set ROOTCELL_STATE_DIR to a writable directory", doing, path, err)
	}
	return fmt.Errorf("%s %q: %w", doing, path, err)
}
