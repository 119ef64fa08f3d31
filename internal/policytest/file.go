package policytest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

// maxBytes is the size of the largest case file.
const maxBytes = 4 << 20

// File is a checked case file.
type File struct {
	Path  string // as given to Parse
	About string // what the cases are about, for people; may be empty
	// Lists are the allowlists that the cases are about. HasLists is false when
	// the file brings none and the cases are about the lists of an instance.
	Lists    policyfile.Files
	HasLists bool
	Cases    []Case
}

// Verdict is what a case expects.
type Verdict string

// The verdicts, spelled as in the audit log.
const (
	Allow Verdict = "allow"
	Deny  Verdict = "deny"
)

// Case is one expectation.
type Case struct {
	Line    int    // of its table in the file
	Name    string // a sentence
	Kind    policy.Kind
	Host    string // DNS and SSH: the name asked for; HTTPS: only the handshake is meant
	URL     string // HTTPS: the request, `https://AUTHORITY` and a target as it will be sent
	Method  string // HTTPS: of the request
	SNI     string // HTTPS: the server name of the handshake when it is not the URL's
	Verdict Verdict
	Reason  policy.Reason // why it is denied; empty with Allow
	Rule    string        // the line that decides; empty when the case does not say
}

// The wire structs hold plain strings: validation happens after decoding, so
// that every problem is found and has its place.
type wireFile struct {
	Schema int        `toml:"schema"`
	About  string     `toml:"about"`
	Policy *wireLists `toml:"policy"`
	Cases  []wireCase `toml:"case"`
}

type wireLists struct {
	DNS    *string  `toml:"dns"`
	HTTPS  *string  `toml:"https"`
	SSH    *string  `toml:"ssh"`
	Broken []string `toml:"broken"`
}

type wireCase struct {
	Name    string `toml:"name"`
	Kind    string `toml:"kind"`
	Host    string `toml:"host"`
	URL     string `toml:"url"`
	Method  string `toml:"method"`
	SNI     string `toml:"sni"`
	Verdict string `toml:"verdict"`
	Reason  string `toml:"reason"`
	Rule    string `toml:"rule"`
}

// Load reads case files. A directory stands for the *.toml files in it. All
// problems of all files are reported, as one error.
func Load(paths ...string) ([]File, error) {
	var files []File
	var errs []error
	for _, path := range paths {
		names, err := expand(path)
		if err != nil {
			errs = append(errs, err)
		}
		for _, name := range names {
			f, err := loadFile(name)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			files = append(files, f)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return files, nil
}

func expand(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("finding case files: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	names, err := filepath.Glob(filepath.Join(escapeGlob(path), "*.toml"))
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("finding case files: %q holds no .toml file", path)
	}
	return names, err
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

func loadFile(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, fmt.Errorf("reading case file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxBytes {
		return File{}, fmt.Errorf("reading case file %q: it is not a regular file of at most %d MiB", path, maxBytes>>20)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return File{}, fmt.Errorf("reading case file: %w", err)
	}
	return Parse(path, text)
}

// Parse reads and checks one case file. The error is of type
// policyfile.Problems and holds every problem with its place, except that a
// syntax error hides what else is wrong.
func Parse(path string, text []byte) (File, error) {
	c := &checker{path: path}
	var wire wireFile
	decoder := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := decoder.Decode(&wire); err != nil {
		c.decodeError(err)
		return File{}, c.problems
	}
	c.places = locate(text)
	f := c.file(wire)
	if err := c.problems.Err(); err != nil {
		return File{}, err
	}
	return f, nil
}
