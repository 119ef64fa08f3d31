package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing wrong with the configuration.
type Problem struct {
	File   string // path, or the name of a flag or environment variable
	Line   int    // from 1; 0 when File has no lines
	Column int    // from 1, in bytes; 0 when File has no lines
	What   string // what is wrong, quoting the text
	Hint   string // what to write instead; may be empty
}

// String is `file:line:column: what; hint`.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": " + p.What)
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	return b.String()
}

// Problems are all the things wrong with the configuration. As an error it
// prints one problem a line.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// sorted orders by position and leaves files in the order they were read.
func (p Problems) sorted() Problems {
	order := make(map[string]int)
	for _, problem := range p {
		if _, seen := order[problem.File]; !seen {
			order[problem.File] = len(order)
		}
	}
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(order[a.File], order[b.File]),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column))
	})
	return p
}

// fault is what a value's check found, before it is known where the value
// stands.
type fault struct{ what, hint string }

func faultf(hint, format string, args ...any) *fault {
	return &fault{what: fmt.Sprintf(format, args...), hint: hint}
}
