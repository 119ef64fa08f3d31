package cell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/rootcell-ai/rootcell/internal/defaults"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

// seeds are the allowlists that an instance starts with.
func seeds() policyfile.Files { return defaults.Files() }

// seedLists writes the allowlists that are missing, from the project's
// defaults. A list that exists is never touched, whatever is in it.
func (c *Cell) seedLists() error {
	for _, file := range seeds() {
		wrote, err := createFile(c.path("proxy", file.Name), []byte(file.Text), 0o600)
		if err != nil {
			return err
		}
		if wrote {
			c.Logger.Debug("seeded allowlist", "instance", c.Name, "file", file.Name)
		}
	}
	return nil
}

// hasList says whether a live list is there, readable or not.
func (c *Cell) hasList(name string) bool {
	_, err := os.Lstat(c.path("proxy", name))
	return !errors.Is(err, fs.ErrNotExist)
}

// lists reads the live allowlists by file name. A list that is missing was
// deleted by the user; prepare seeds it before it is read.
func (c *Cell) lists() (map[string]string, error) {
	texts := map[string]string{}
	for _, kind := range policy.Kinds() {
		name := policyfile.FileName(kind)
		if info, err := os.Stat(c.path("proxy", name)); err == nil && !info.Mode().IsRegular() {
			// A pipe would keep the command waiting for ever.
			return nil, fmt.Errorf("reading allowlist %q: it is no regular file; delete it to get the default back", c.path("proxy", name))
		}
		text, err := os.ReadFile(c.path("proxy", name))
		if err != nil {
			return nil, fmt.Errorf("reading allowlist: %w; make it readable, or delete it to get the default back", err)
		}
		texts[name] = string(text)
	}
	return texts, nil
}

// checkLists parses the lists and returns the problems of all, and the lists
// that have no error.
func checkLists(lists map[string]string) (good map[string]string, problems policyfile.Problems) {
	good = map[string]string{}
	for _, kind := range policy.Kinds() {
		name := policyfile.FileName(kind)
		text, ok := lists[name]
		if !ok {
			continue
		}
		_, found := policyfile.Parse(kind, name, []byte(text))
		problems = append(problems, found...)
		if found.Err() == nil {
			good[name] = text
		}
	}
	return good, problems
}
