package policyfile

import (
	"fmt"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

// File is the text of one list.
type File struct {
	Name string // what problems and decisions call it, normally FileName(kind)
	Text string
}

// Files are the lists that could be read. A kind without an entry is denied.
type Files map[policy.Kind]File

// Grant is a line that counts besides the list of its kind, for a time that
// somebody else keeps.
type Grant struct {
	Kind policy.Kind
	ID   string // decisions name the rule "grant:ID"
	Line string // as it would stand in the list
}

// Compile turns lists and grants into a policy. A kind whose list is absent
// from files or has an error is denied as a whole, grants included; so the
// policy can be used whatever the problems, and a reload that wants to keep
// the running one asks Problems.Err. A grant with an error is left out, and so,
// with a warning, is one that would widen nothing: a host where path rules
// apply, or a path where the whole host is allowed, which would take the rest
// away for as long as it lasts.
func Compile(files Files, grants ...Grant) (*policy.Policy, Problems) {
	rules, problems, _ := compile(files, grants)
	return policy.New(rules), problems
}

// Idle returns why Compile leaves grants out that have no error, by their ID.
func Idle(files Files, grants ...Grant) map[string]error {
	if len(grants) == 0 {
		return nil
	}
	_, _, idle := compile(files, grants)
	return idle
}

func compile(files Files, grants []Grant) (rules policy.Rules, problems Problems, idle map[string]error) {
	rules, idle = make(policy.Rules), map[string]error{}
	for _, kind := range policy.Kinds() {
		file, present := files[kind]
		if !present {
			continue
		}
		list, found := Parse(kind, file.Name, []byte(file.Text))
		problems = append(problems, found...)
		// Invariant: a list with an error allows nothing (TestBadListDeniesItsKind).
		if found.Err() == nil {
			rules[kind] = list
		}
	}
	for _, g := range grants {
		rule, found := ParseLine(g.Kind, "grant:"+g.ID, g.Line)
		problems = append(problems, found...)
		list, ok := rules[g.Kind]
		if !ok || found.Err() != nil {
			continue
		}
		if _, err := checkEffect(g.Kind, list, rule); err != nil {
			problems = append(problems, Problem{File: rule.Where, What: err.Error(), Warning: true})
			idle[g.ID] = err
			continue
		}
		rules[g.Kind] = append(list, rule)
	}
	return rules, problems, idle
}

// ParseLine reads text as exactly one rule, which decisions will call name.
func ParseLine(kind policy.Kind, name, text string) (policy.Rule, Problems) {
	list, problems := Parse(kind, name, []byte(text))
	if problems.Err() == nil && len(list) != 1 {
		problems = append(problems, Problem{File: name, What: fmt.Sprintf("%s is not one rule", quote(text)),
			Hint: "write one host, or for HTTPS one host and a regex"})
	}
	if problems.Err() != nil {
		return policy.Rule{}, problems
	}
	list[0].Where = name
	return list[0], problems
}
