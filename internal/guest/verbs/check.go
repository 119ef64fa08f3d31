//go:build linux

package verbs

import (
	"fmt"
	"slices"

	"github.com/rootcell-ai/rootcell/internal/control"
)

var ruleFiles = []string{"allowed-dns.txt", "allowed-https.txt", "allowed-ssh.txt"}

// checkRuleFile refuses names that are not a rule file's.
func checkRuleFile(name, text string) ([]control.Problem, error) {
	if !slices.Contains(ruleFiles, name) {
		return nil, fmt.Errorf("%q is not one of %q", name, ruleFiles)
	}
	return nil, nil
}
