package agentroot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// file is one file and how it should be.
type file struct {
	name     string // slash-separated, below the root
	text     string
	mode     fs.FileMode // 0 means 0644
	uid, gid int
}

// write brings files to their content, mode and owner, each by a rename, so
// that one is never there in half.
func write(root *os.Root, files ...file) error {
	var errs []error
	for _, f := range files {
		if err := f.write(root); err != nil {
			errs = append(errs, fmt.Errorf("writing %q: %w", f.name, err))
		}
	}
	return errors.Join(errs...)
}

func (f file) write(root *os.Root) error {
	mode := f.mode
	if mode == 0 {
		mode = 0o644
	}
	info, err := root.Lstat(f.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		// A directory, link or device in a file's place was put there by the
		// agent; the file wins.
		if err := root.RemoveAll(f.name); err != nil {
			return err
		}
	case info.Size() == int64(len(f.text)):
		if old, err := root.ReadFile(f.name); err == nil && bytes.Equal(old, []byte(f.text)) {
			return f.own(root, f.name, mode)
		}
	}
	if err := root.MkdirAll(path.Dir(f.name), 0o755); err != nil {
		return err
	}
	temporary := path.Join(path.Dir(f.name), ".rootcell-"+path.Base(f.name))
	if err := root.RemoveAll(temporary); err != nil {
		return err
	}
	// Made with its final mode, so that a key is never readable in between.
	if err := root.WriteFile(temporary, []byte(f.text), mode); err != nil {
		return err
	}
	if err := f.own(root, temporary, mode); err != nil {
		return err
	}
	return root.Rename(temporary, f.name)
}

func (f file) own(root *os.Root, name string, mode fs.FileMode) error {
	// Before the mode: chown clears set-id bits.
	if os.Geteuid() == 0 {
		if err := root.Lchown(name, f.uid, f.gid); err != nil {
			return err
		}
	}
	return root.Chmod(name, mode)
}

// InstallProgram brings an executable to the given content.
func InstallProgram(dir, name string, text []byte) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening the agent's root: %w", err)
	}
	defer root.Close()
	return write(root, file{name: name, text: string(text), mode: 0o755})
}

// link brings name to a symbolic link to target.
func link(root *os.Root, target, name string) error {
	if old, err := root.Readlink(name); err == nil && old == target {
		return nil
	}
	if err := root.RemoveAll(name); err != nil {
		return fmt.Errorf("replacing %q: %w", name, err)
	}
	if err := root.Symlink(target, name); err != nil {
		return fmt.Errorf("linking %q: %w", name, err)
	}
	return nil
}

// block replaces the lines between two markers in a file that others edit too,
// or appends them with their markers.
func block(text, comment string, lines []byte) string {
	begin, end := comment+" begin rootcell\n", comment+" end rootcell\n"
	replacement := begin + string(lines) + end
	start := strings.Index(text, begin)
	if start >= 0 {
		if stop := strings.Index(text[start:], end); stop >= 0 {
			return text[:start] + replacement + text[start+stop+len(end):]
		}
	}
	if text != "" && text[len(text)-1] != '\n' {
		text += "\n"
	}
	return text + replacement
}
