package cli

import (
	"fmt"
	"slices"

	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
	"github.com/rootcell-ai/rootcell/internal/policytest"
	"github.com/rootcell-ai/rootcell/internal/ui"
)

type policyCmd struct {
	Check   policyCheckCmd   `cmd:"" help:"Check the allowlists and report every error and doubt."`
	Test    policyTestCmd    `cmd:"" help:"Run files of [[case]] tables against the lists."`
	Explain policyExplainCmd `cmd:"" help:"Say which line decides about a host or request."`
}

type policyCheckCmd struct {
	Dir string `placeholder:"DIR" help:"Check the lists of a directory instead of the instance's."`
}

// jsonProblem is a problem of a list in JSON answers.
type jsonProblem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	What    string `json:"what"`
	Hint    string `json:"hint,omitempty"`
	Warning bool   `json:"warning"`
}

func (cmd *policyCheckCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	problems, err := c.PolicyCheck(cmd.Dir)
	if err != nil {
		return err
	}
	list := make([]jsonProblem, len(problems))
	for i, p := range problems {
		list[i] = jsonProblem{File: p.File, Line: p.Line, Column: p.Column, What: p.What, Hint: p.Hint, Warning: p.Warning}
	}
	errs := len(problems.Errors())
	err = a.answer(struct {
		Valid    bool          `json:"valid"`
		Problems []jsonProblem `json:"problems"`
	}{errs == 0, list}, func() { a.printProblems(problems) })
	if err == nil && errs > 0 {
		return exitStatus(cell.ExitUsage)
	}
	return err
}

func (a *app) printProblems(problems policyfile.Problems) {
	for _, p := range problems {
		a.ui.Printf("%s", ui.Safe(p.String()))
	}
	if len(problems) == 0 {
		a.ui.Printf("the lists are valid")
	}
}

type policyExplainCmd struct {
	Dir     string   `placeholder:"DIR" help:"Read the lists of a directory instead of the instance's."`
	Subject []string `arg:"" name:"subject" help:"dns HOST, ssh HOST, or https [METHOD] URL."`
}

func (cmd *policyExplainCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	e, err := c.Explain(cmd.Dir, cmd.Subject)
	if err != nil {
		return err
	}
	err = a.answer(e, func() { a.printExplanation(e) })
	if err == nil && e.Verdict != "allow" {
		return exitStatus(cell.ExitVerdict)
	}
	return err
}

func (a *app) printExplanation(e cell.Explanation) {
	subject := string(e.Kind) + " " + e.Host
	if e.Method != "" {
		subject = fmt.Sprintf("%s %s https://%s%s", e.Kind, e.Method, e.Host, e.Target)
	}
	line := e.Verdict + ": " + subject
	if e.Rule != "" {
		line += ", by " + e.Rule
	}
	if e.Reason != "" {
		line += fmt.Sprintf(" (%s: %s)", e.Reason, e.Meaning)
	}
	a.ui.Printf("%s", ui.Safe(line))
	for _, m := range e.Matching {
		a.ui.Printf("  %s", ui.Safe(m))
	}
}

type policyTestCmd struct {
	Dir   string   `placeholder:"DIR" help:"Use the lists of a directory for files that bring none, instead of the instance's."`
	Files []string `arg:"" name:"file" help:"TOML files with [[case]] tables, or directories of them."`
}

// jsonCase is one case in JSON answers.
type jsonCase struct {
	File       string `json:"file"`
	Name       string `json:"name"`
	Passed     bool   `json:"passed"`
	Difference string `json:"difference,omitempty"`
}

func (cmd *policyTestCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	files, err := policytest.Load(cmd.Files...)
	if err != nil {
		return &usage{err.Error()}
	}
	live := policyfile.Files{}
	// Files that bring lists of their own need no instance.
	if slices.ContainsFunc(files, func(f policytest.File) bool { return !f.HasLists }) {
		if live, err = c.PolicyLists(cmd.Dir); err != nil {
			return err
		}
	}
	cases, failed := []jsonCase{}, 0
	for _, f := range files {
		for _, r := range f.Run(live) {
			cases = append(cases, jsonCase{File: f.Path, Name: r.Case.Name, Passed: r.Difference == "", Difference: r.Difference})
			if r.Difference != "" {
				failed++
			}
		}
	}
	err = a.answer(struct {
		Passed int        `json:"passed"`
		Failed int        `json:"failed"`
		Cases  []jsonCase `json:"cases"`
	}{len(cases) - failed, failed, cases}, func() { a.printCases(cases, failed) })
	if err == nil && failed > 0 {
		return exitStatus(cell.ExitVerdict)
	}
	return err
}

func (a *app) printCases(cases []jsonCase, failed int) {
	for _, c := range cases {
		if !c.Passed {
			a.ui.Printf("FAIL %s: %s: %s", ui.Safe(c.File), ui.Safe(c.Name), ui.Safe(c.Difference))
		}
	}
	a.ui.Printf("%d passed, %d failed", len(cases)-failed, failed)
}
