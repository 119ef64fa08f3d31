package sshx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

func (t *transfer) upload(sources []string, destination string) error {
	trailing := strings.HasSuffix(destination, "/")
	destination = remotePath(destination)
	info, err := t.sftp.Stat(destination)
	into := err == nil && info.IsDir()
	if !into && (len(sources) > 1 || trailing) {
		return fmt.Errorf("copying to %q in the agent: it is no directory; make it first", destination)
	}
	for _, source := range sources {
		// A link that the user names is followed, one found in a directory is
		// not: only what was asked for leaves the host.
		info, err := os.Stat(source)
		if err != nil {
			return fmt.Errorf("copying to the agent: %w", err)
		}
		if info.IsDir() && !t.recursive {
			return fmt.Errorf("copying %q to the agent: it is a directory; add -r", source)
		}
		target := destination
		if into {
			absolute, err := filepath.Abs(source)
			if err != nil {
				return fmt.Errorf("copying %q to the agent: %w", source, err)
			}
			target = path.Join(destination, filepath.Base(absolute))
		}
		if err := t.send(source, target, info.Mode()); err != nil {
			return err
		}
	}
	return nil
}

func (t *transfer) send(source, target string, mode fs.FileMode) error {
	if err := t.entry(); err != nil {
		return err
	}
	switch {
	case mode.IsDir():
		return t.sendDirectory(source, target, mode)
	case mode.IsRegular():
		return t.sendFile(source, target, mode)
	case mode&fs.ModeSymlink != 0:
		return t.sendLink(source, target)
	}
	t.skip("skipping %q: it is neither file nor directory", source)
	return nil
}

func (t *transfer) sendDirectory(source, target string, mode fs.FileMode) error {
	entries, err := os.ReadDir(source)
	if err != nil {
		return fmt.Errorf("copying to the agent: %w", err)
	}
	if err := t.makeDirectory(target, mode); err != nil {
		return fmt.Errorf("making directory %q in the agent: %w", target, err)
	}
	for _, child := range entries {
		info, err := child.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return fmt.Errorf("copying to the agent: %w", err)
		}
		if err := t.send(filepath.Join(source, child.Name()), path.Join(target, child.Name()), info.Mode()); err != nil {
			return err
		}
	}
	return nil
}

func (t *transfer) makeDirectory(target string, mode fs.FileMode) error {
	err := t.sftp.Mkdir(target)
	if err == nil {
		return t.sftp.Chmod(target, mode.Perm()|0o700)
	}
	if info, statErr := t.sftp.Stat(target); statErr == nil && info.IsDir() {
		return nil
	}
	return err
}

func (t *transfer) sendFile(source, target string, mode fs.FileMode) (err error) {
	from, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("copying to the agent: %w", err)
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return fmt.Errorf("copying to the agent: %w", err)
	}
	to, err := t.sftp.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("copying to %q in the agent: %w", target, err)
	}
	defer func() {
		if closeErr := to.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("copying to %q in the agent: %w", target, closeErr)
		}
	}()
	if err := to.Chmod(mode.Perm()); err != nil {
		return fmt.Errorf("copying to %q in the agent: %w", target, err)
	}
	if _, err := to.ReadFrom(&countedReader{t, source, from, info.Size()}); err != nil {
		return fmt.Errorf("copying %q to the agent: %w", source, err)
	}
	return nil
}

// sendLink makes the same link in the agent, where it may lead anywhere.
func (t *transfer) sendLink(source, target string) error {
	link, err := os.Readlink(source)
	if err != nil {
		return fmt.Errorf("copying to the agent: %w", err)
	}
	if info, err := t.sftp.Lstat(target); err == nil && !info.IsDir() {
		if err := t.sftp.Remove(target); err != nil {
			return fmt.Errorf("replacing %q in the agent: %w", target, err)
		}
	}
	if err := t.sftp.Symlink(link, target); err != nil {
		return fmt.Errorf("making link %q in the agent: %w", target, err)
	}
	return nil
}

// countedReader counts what is read of one file. With its Size the library
// sends requests without waiting for each answer.
type countedReader struct {
	t    *transfer
	name string
	io.Reader
	size int64
}

func (r *countedReader) Size() int64 { return r.size }

func (r *countedReader) Read(p []byte) (int, error) {
	if r.t.ctx.Err() != nil {
		return 0, context.Cause(r.t.ctx)
	}
	n, err := r.Reader.Read(p)
	r.t.count(n, r.name)
	return n, err
}
