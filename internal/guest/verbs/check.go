//go:build linux

package verbs

import (
	"fmt"

	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

// checkRuleFile parses a rule file as the daemon will. Warnings pass.
func checkRuleFile(name, text string) ([]control.Problem, error) {
	for _, kind := range policy.Kinds() {
		if policyfile.FileName(kind) != name {
			continue
		}
		_, found := policyfile.Parse(kind, name, []byte(text))
		var problems []control.Problem
		for _, p := range found.Errors() {
			problems = append(problems, control.Problem{
				Kind: string(kind), File: p.File, Line: p.Line, Column: p.Column, What: p.What, Hint: p.Hint,
			})
		}
		return problems, nil
	}
	return nil, fmt.Errorf("%q is not the name of a rule file", name)
}
