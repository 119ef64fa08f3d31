package cell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	configFile    = "rootcell.toml"
	stateFile     = "state.json"
	selectionFile = ".selected-instance"
)

// Root is the directory that holds all instances.
type Root struct {
	// Dir is absolute. It need not exist.
	Dir string
	// ProjectConfig is the rootcell.toml of the project that the command was
	// started in, or "".
	ProjectConfig string
}

// FindRoot applies the rules for the state root: $ROOTCELL_STATE_DIR, else
// instances/ beside a rootcell.toml in the working directory, else
// $XDG_STATE_HOME/rootcell/instances. It creates nothing.
func FindRoot(getenv func(string) string, workDir string) (Root, error) {
	var root Root
	project := filepath.Join(workDir, configFile)
	if _, err := os.Stat(project); err == nil {
		root.ProjectConfig = project
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Root{}, fmt.Errorf("looking for a project configuration: %w; mend the permissions of %q", err, workDir)
	}
	switch dir := getenv("ROOTCELL_STATE_DIR"); {
	case dir != "":
		abs, err := filepath.Abs(dir)
		if err != nil {
			return Root{}, fmt.Errorf("resolving ROOTCELL_STATE_DIR %q: %w", dir, err)
		}
		root.Dir = abs
	case root.ProjectConfig != "":
		root.Dir = filepath.Join(workDir, "instances")
	default:
		state := getenv("XDG_STATE_HOME")
		// The XDG specification says that relative paths are to be ignored.
		if !filepath.IsAbs(state) {
			home := getenv("HOME")
			if home == "" {
				return Root{}, errors.New("finding the state directory: neither ROOTCELL_STATE_DIR, XDG_STATE_HOME nor HOME is set; set ROOTCELL_STATE_DIR")
			}
			state = filepath.Join(home, ".local", "state")
		}
		root.Dir = filepath.Join(state, "rootcell", "instances")
	}
	return root, nil
}

// InstanceDir is the directory of an instance, which need not exist.
func (r Root) InstanceDir(name string) string { return filepath.Join(r.Dir, name) }

// Exists says whether name is an instance: a directory with a state or a
// configuration in it.
func (r Root) Exists(name string) bool {
	for _, f := range []string{stateFile, configFile} {
		if info, err := os.Lstat(filepath.Join(r.InstanceDir(name), f)); err == nil && info.Mode().IsRegular() {
			return true
		}
	}
	return false
}

// Instances lists the names of all instances, sorted. A root that does not
// exist has none.
func (r Root) Instances() ([]string, error) {
	entries, err := os.ReadDir(r.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing instances: %w; check the permissions of %q", err, r.Dir)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && CheckName(e.Name()) == nil && r.Exists(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Selected is the instance that `rootcell select` made the default, or
// DefaultInstance.
func (r Root) Selected() (string, error) {
	path := filepath.Join(r.Dir, selectionFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return DefaultInstance, nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the selected instance: %w; give --instance or run `rootcell select NAME`", err)
	}
	name := strings.TrimSuffix(string(text), "\n")
	if CheckName(name) != nil {
		return "", usageError("selection file %q holds no valid instance name; run `rootcell select NAME` or give --instance", path)
	}
	return name, nil
}

// Select makes name the default for later commands. The instance need not
// exist yet.
func (r Root) Select(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := makeDir(r.Dir); err != nil {
		return err
	}
	return writeFile(filepath.Join(r.Dir, selectionFile), []byte(name+"\n"), 0o600)
}
