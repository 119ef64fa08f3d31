package policyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

// Load reads the lists of a directory. A list that is missing, unreadable, not
// a regular file or too large is left out, so that its kind is denied, and
// reported as an error. The texts are not parsed: Compile does that.
func Load(dir string) (Files, Problems) {
	files := make(Files)
	var problems Problems
	for _, kind := range policy.Kinds() {
		name := FileName(kind)
		text, err := readRegular(filepath.Join(dir, name))
		if err != nil {
			problems = append(problems, Problem{File: name, What: err.Error(), Hint: loadHint(err)})
			continue
		}
		files[kind] = File{Name: name, Text: string(text)}
	}
	return files, problems
}

var errNotRegular = errors.New("it is not a regular file")

func loadHint(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "create it; an empty list denies everything"
	case errors.Is(err, fs.ErrPermission):
		return "make it readable"
	case errors.Is(err, errNotRegular):
		return "put a text file in its place"
	}
	return ""
}

// readRegular reads a file of at most MaxBytes. Symbolic links are followed, as
// configuration directories made by Nix consist of them; what they lead to
// must be a regular file. O_NONBLOCK keeps a FIFO from blocking the open, and
// the type is that of what was opened, not of what the name meant before.
func readRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the list: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("examining the list: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading %q: %w", path, errNotRegular)
	}
	// One byte more than allowed, so that Parse sees what is too large.
	text, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading the list: %w", err)
	}
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("reading %q: it is larger than %d MiB", path, MaxBytes>>20)
	}
	return text, nil
}
