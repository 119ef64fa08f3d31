package policyfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is something wrong or doubtful in a list.
type Problem struct {
	File    string // base name of the list, or what a grant is called
	Line    int    // from 1; 0 when it is about the file as a whole
	Column  int    // in characters from 1; 0 with Line 0
	What    string
	Hint    string // what to do; may be empty
	Warning bool   // the list works, but perhaps not as it was meant
}

// String returns `file:line:column: what; hint` as editors parse it.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.What)
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	return b.String()
}

// Problems is what a check of lists found, in the order of the text.
type Problems []Problem

// Errors returns those that make a list unusable.
func (ps Problems) Errors() Problems { return ps.only(false) }

// Warnings returns those that do not.
func (ps Problems) Warnings() Problems { return ps.only(true) }

func (ps Problems) only(warning bool) Problems {
	var out Problems
	for _, p := range ps {
		if p.Warning == warning {
			out = append(out, p)
		}
	}
	return out
}

// Err returns the errors, one a line, as one error that wraps nothing, and nil
// when there are none. Warnings are left out.
func (ps Problems) Err() error {
	if errs := ps.Errors(); len(errs) > 0 {
		return errs
	}
	return nil
}

// Error returns every problem on a line of its own.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// sort puts problems in the order of the text.
func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
