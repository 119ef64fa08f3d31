package provision

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// maxArchive bounds what is carried over, in bytes: settings and skills, not
// data.
const maxArchive = 16 << 20

// Archive packs the regular files and directories below dir, always to the
// same bytes for the same content. Symbolic links are left out: they could name
// files outside of dir. It is nil when dir does not exist.
func Archive(dir string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("packing %q for the agent: %w", dir, err)
	}
	defer root.Close()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Mode: 0o755})
		case !info.Mode().IsRegular():
			return nil
		}
		text, err := fs.ReadFile(root.FS(), path)
		if err != nil {
			return err
		}
		if b.Len()+len(text) > maxArchive {
			return fmt.Errorf("%q and what comes before it exceed %d MiB; keep large files elsewhere and copy them with `rootcell cp`", filepath.Join(dir, path), maxArchive>>20)
		}
		mode := int64(0o644)
		if info.Mode().Perm()&0o100 != 0 {
			mode = 0o755
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: mode, Size: int64(len(text))}); err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("packing %q for the agent: %w", dir, err)
	}
	return b.Bytes(), nil
}
