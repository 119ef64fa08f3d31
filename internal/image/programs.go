package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// takePrograms copies programs from a root into a smaller one, with their
// program interpreter and every library they are linked to. It reads the files
// rather than running them, so a root of another architecture does as well.
func takePrograms(tree, target string, programs []string) error {
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	seen := map[string]bool{}
	queue := append([]string{}, programs...)
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if seen[name] {
			continue
		}
		seen[name] = true
		needs, err := requirements(root, name)
		if err != nil {
			return err
		}
		queue = append(queue, needs...)
		// Links are followed: the copy has the name that was asked for.
		real, err := follow(root, name)
		if err != nil {
			return err
		}
		text, err := root.ReadFile(real)
		if err != nil {
			return err
		}
		copied := filepath.Join(target, name)
		if err := os.MkdirAll(filepath.Dir(copied), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(copied, text, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// requirements are the interpreter and the libraries that an ELF file names, as
// paths in the root.
func requirements(root *os.Root, name string) ([]string, error) {
	real, err := follow(root, name)
	if err != nil {
		return nil, err
	}
	f, err := root.Open(real)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	program, err := elf.NewFile(f)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	var needs []string
	for _, segment := range program.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		text := make([]byte, segment.Filesz)
		if _, err := segment.ReadAt(text, 0); err != nil {
			return nil, fmt.Errorf("reading the interpreter of %q: %w", name, err)
		}
		// /lib and /lib64 are links into /usr in the root and in the initramfs.
		needs = append(needs, path.Join("usr", string(text[:len(text)-1])))
	}
	libraries, err := program.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("reading the libraries of %q: %w", name, err)
	}
	triplet := map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}[program.Machine]
	for _, library := range libraries {
		found, err := findLibrary(root, library, triplet)
		if err != nil {
			return nil, fmt.Errorf("looking for a library of %q: %w", name, err)
		}
		needs = append(needs, found)
	}
	return needs, nil
}

// follow resolves a link whose target is absolute, which means the root's own
// "/" and not this machine's. Relative ones os.Root follows itself.
func follow(root *os.Root, name string) (string, error) {
	for range 8 {
		target, err := root.Readlink(name)
		if err != nil || !path.IsAbs(target) {
			return name, nil //nolint:nilerr // not a link
		}
		name = strings.TrimPrefix(path.Clean(target), "/")
	}
	return "", fmt.Errorf("following %q: too many links", name)
}

func findLibrary(root *os.Root, library, triplet string) (string, error) {
	for _, dir := range []string{"usr/lib/" + triplet, "usr/lib64", "usr/lib"} {
		name := path.Join(dir, library)
		if _, err := root.Stat(name); err == nil {
			return name, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("%q is in none of the usual directories", library)
}
