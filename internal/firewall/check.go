package firewall

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rootcell-ai/rootcell/internal/ca"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

// Check returns every problem of the configuration at path and of the files that
// it names, all with a place. Lists must be there; the CA may be missing, because
// a configuration is checked where it is built and the key never is there.
func Check(path string) policyfile.Problems {
	config, problems := Load(path)
	if len(problems) > 0 {
		return problems
	}
	problems = append(problems, checkLists(config.Policy.Dir)...)
	if _, err := loadCA(config.CA); err != nil && !errors.Is(err, fs.ErrNotExist) {
		problems = append(problems, policyfile.Problem{File: config.CA.Cert, Line: 1, Column: 1, What: err.Error()})
	}
	if _, err := loadRoots(config.Upstream.Roots); err != nil {
		problems = append(problems, policyfile.Problem{File: config.Upstream.Roots, Line: 1, Column: 1, What: err.Error(),
			Hint: "name a bundle of PEM certificates, or none for the system's"})
	}
	return problems
}

func checkLists(dir string) policyfile.Problems {
	files, problems := policyfile.Load(dir)
	for _, kind := range policy.Kinds() {
		if file, ok := files[kind]; ok {
			_, found := policyfile.Parse(kind, file.Name, []byte(file.Text))
			problems = append(problems, found...)
		}
	}
	for i := range problems {
		p := &problems[i]
		p.File, p.Line, p.Column = filepath.Join(dir, p.File), max(p.Line, 1), max(p.Column, 1)
	}
	return problems
}

// loadCA reads and checks the authority's files.
func loadCA(files CAFiles, options ...ca.Option) (*ca.Authority, error) {
	cert, err := readSmall(files.Cert)
	if err != nil {
		return nil, fmt.Errorf("reading the CA certificate: %w", err)
	}
	key, err := readSmall(files.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the CA key: %w", err)
	}
	return ca.Load(cert, key, options...)
}

// loadRoots reads a PEM bundle. No path means the system's roots, which are nil.
func loadRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("reading the root certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("reading the root certificates: %q has none", path)
	}
	return pool, nil
}

// readSmall reads a regular file of at most 4 MiB.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 4<<20 {
		return nil, fmt.Errorf("%q is not a regular file of at most 4 MiB", path)
	}
	return os.ReadFile(path)
}
