package sshx

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// remoteEntry is what the server says about one of its files. All of it may
// be a lie.
type remoteEntry struct {
	name string
	mode fs.FileMode
}

// place is a directory of the host that is being filled. Every write goes
// through its os.Root with a name of a single component.
type place struct {
	root  *os.Root
	shown string // for messages
	depth int    // 0 for the destination, 1 for the topmost copied directory
	git   bool   // inside a Git repository's own directory
}

func (t *transfer) download(sources []string, destination string) error {
	info, err := os.Stat(destination)
	into := err == nil && info.IsDir()
	directory := destination
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("copying to %q: %w", destination, err)
	case !into && (len(sources) > 1 || strings.HasSuffix(destination, "/")):
		return fmt.Errorf("copying to %q: it is no directory; make it first", destination)
	case !into:
		directory = filepath.Dir(destination)
	}
	root, err := os.OpenRoot(directory)
	if err != nil {
		return fmt.Errorf("copying to %q: %w", destination, err)
	}
	defer root.Close()
	for _, source := range sources {
		source = remotePath(source)
		name := path.Base(source)
		if !into {
			name = filepath.Base(destination)
		}
		if !isName(name) {
			return fmt.Errorf("copying %q: it has no name to copy it under; write the path of a file or directory in it", source)
		}
		// A link that the user names is followed, in the agent.
		info, err := t.sftp.Stat(source)
		if err != nil {
			return fmt.Errorf("copying %q from the agent: %w", source, err)
		}
		if info.IsDir() && !t.recursive {
			return fmt.Errorf("copying %q from the agent: it is a directory; add -r", source)
		}
		if err := t.fetch(source, place{root: root, shown: directory}, remoteEntry{name, info.Mode()}); err != nil {
			return err
		}
	}
	return nil
}

// fetch copies the server's file at source to to.root under the entry's name.
//
// Invariant: nothing outside to.root is written or read, whatever names, modes
// and contents the server sends (TestHostileServerCannotLeaveTheDestination).
func (t *transfer) fetch(source string, to place, entry remoteEntry) error {
	if err := t.entry(); err != nil {
		return err
	}
	switch {
	case entry.mode.IsDir():
		return t.fetchDirectory(source, to, entry)
	case entry.mode.IsRegular():
		return t.fetchFile(source, to, entry)
	case entry.mode&fs.ModeSymlink != 0:
		return t.fetchLink(source, to, entry)
	}
	t.skip("skipping %q: it is neither file nor directory", source)
	return nil
}

func (t *transfer) fetchDirectory(source string, to place, entry remoteEntry) error {
	shown := filepath.Join(to.shown, entry.name)
	if to.depth >= maxDepth {
		return fmt.Errorf("copying %q from the agent: directories are nested more than %d deep", source, maxDepth)
	}
	entries, err := t.list(source)
	if err != nil {
		return err
	}
	if err := to.root.Mkdir(entry.name, entry.mode.Perm()|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making directory %q: %w", shown, err)
	}
	// A link that was there before is not followed.
	if info, err := to.root.Lstat(entry.name); err != nil || !info.IsDir() {
		return fmt.Errorf("copying to %q: something else than a directory is there; remove it first", shown)
	}
	root, err := to.root.OpenRoot(entry.name)
	if err != nil {
		return fmt.Errorf("copying to %q: %w", shown, err)
	}
	defer root.Close()
	inside := place{root: root, shown: shown, depth: to.depth + 1, git: to.git}
	if strings.HasSuffix(strings.ToLower(entry.name), ".git") {
		inside.git = true
		t.skip("%q is the agent's Git directory: its hooks are not executable here, but look at its config before you run git in it", shown)
	}
	for _, child := range entries {
		if !isName(child.name) {
			return fmt.Errorf("copying %q from the agent: it names a file %q, which no file can have", source, child.name)
		}
		if err := t.fetch(path.Join(source, child.name), inside, child); err != nil {
			return err
		}
	}
	return nil
}

func (t *transfer) fetchFile(source string, to place, entry remoteEntry) (err error) {
	shown := filepath.Join(to.shown, entry.name)
	info, err := to.root.Lstat(entry.name)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("copying to %q: something else than a file is there; remove it first", shown)
	}
	from, err := t.sftp.Open(source)
	if err != nil {
		return fmt.Errorf("copying %q from the agent: %w", source, err)
	}
	defer from.Close()
	// Permission bits only, and under the host's umask.
	mode := entry.mode.Perm() | 0o600
	if to.git && strings.EqualFold(filepath.Base(to.shown), "hooks") {
		mode &^= 0o111
	}
	temporary := ".rootcell-copy-" + rand.Text()
	file, err := to.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return fmt.Errorf("copying to %q: %w", shown, err)
	}
	defer func() {
		if err != nil {
			file.Close()
			_ = to.root.Remove(temporary) // the error at hand says more
		}
	}()
	if _, err := from.WriteTo(&counted{t, shown, file}); err != nil {
		return fmt.Errorf("copying %q from the agent: %w", source, err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("copying to %q: %w", shown, err)
	}
	if err := to.root.Rename(temporary, entry.name); err != nil {
		return fmt.Errorf("copying to %q: %w", shown, err)
	}
	return nil
}

// fetchLink makes a symbolic link whose target lies in what is being copied,
// and leaves out every other.
func (t *transfer) fetchLink(source string, to place, entry remoteEntry) error {
	shown := filepath.Join(to.shown, entry.name)
	target, err := t.sftp.ReadLink(source)
	if err != nil {
		return fmt.Errorf("copying %q from the agent: %w", source, err)
	}
	if !isInnerTarget(target, to.depth-1) {
		t.skip("skipping %q: it is a link to %q, outside of what is copied", source, target)
		return nil
	}
	info, err := to.root.Lstat(entry.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("copying to %q: %w", shown, err)
	case info.Mode()&fs.ModeSymlink == 0 && !info.Mode().IsRegular():
		return fmt.Errorf("copying to %q: something else than a link is there; remove it first", shown)
	default:
		if err := to.root.Remove(entry.name); err != nil {
			return fmt.Errorf("copying to %q: %w", shown, err)
		}
	}
	if err := to.root.Symlink(target, entry.name); err != nil {
		return fmt.Errorf("making link %q: %w", shown, err)
	}
	return nil
}

// isInnerTarget reports whether a link's target stays inside the copied tree
// when the link lies up real directories below its top. All `..` must come
// first: they climb real directories, and behind a name, which could be another
// link, their way would be unknown.
func isInnerTarget(target string, up int) bool {
	if target == "" || len(target) > 4096 || strings.HasPrefix(target, "/") || strings.ContainsRune(target, 0) {
		return false
	}
	named := false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if up--; named || up < 0 {
				return false
			}
		default:
			named = true
		}
	}
	return up >= 0
}

// isName reports whether s can be the name of an entry of a directory.
func isName(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00")
}

// remotePath turns what a user writes into a path that SFTP understands, which
// takes relative ones from the home directory.
func remotePath(p string) string {
	if p == "~" || p == "" {
		return "."
	}
	return path.Clean(strings.TrimPrefix(p, "~/"))
}
