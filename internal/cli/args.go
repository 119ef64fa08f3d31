package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/rootcell-ai/rootcell/internal/nearest"
)

// usage is an error in how rootcell was called. It exits with 2.
type usage struct{ text string }

func (u *usage) Error() string { return u.text }

// normalise turns the shorthands of the command line into commands: no command
// at all enters the cell, and `--` before any command runs what follows in the
// agent. A word that is no command is refused here, with advice.
func normalise(app *kong.Node, args []string) ([]string, error) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--help" || arg == "-h" || arg == "--version":
			return args, nil
		case arg == "--":
			return slices.Concat(args[:i], []string{"run"}, args[i:]), nil
		case strings.HasPrefix(arg, "-") && arg != "-":
			if takesNext(app, arg) {
				i++
			}
		default:
			if child(app, arg) == nil {
				return nil, unknownWord(app, arg, args[i:])
			}
			return args, nil
		}
	}
	return slices.Concat(args, []string{"enter"}), nil
}

// takesNext says whether a flag of node takes the following argument as its
// value.
func takesNext(node *kong.Node, arg string) bool {
	if strings.HasPrefix(arg, "--") {
		name, _, hasValue := strings.Cut(arg[2:], "=")
		f := flag(node, func(f *kong.Flag) bool { return f.Name == name })
		return f != nil && !hasValue && !f.IsBool()
	}
	// In a group of short flags the first that takes a value takes the rest
	// of the word, or the next argument when nothing is left.
	for i, r := range arg[1:] {
		f := flag(node, func(f *kong.Flag) bool { return f.Short == r })
		if f == nil {
			return false
		}
		if !f.IsBool() {
			return i == len(arg)-2
		}
	}
	return false
}

// flag finds a flag of node or of what lies above it.
func flag(node *kong.Node, match func(*kong.Flag) bool) *kong.Flag {
	for ; node != nil; node = node.Parent {
		for _, f := range node.Flags {
			if match(f) {
				return f
			}
		}
	}
	return nil
}

func child(node *kong.Node, name string) *kong.Node {
	for _, c := range node.Children {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func visible(node *kong.Node) []string {
	var names []string
	for _, c := range node.Children {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

func unknownWord(app *kong.Node, word string, rest []string) error {
	text := fmt.Sprintf("%q is not a command", word)
	if near, ok := nearest.To(word, visible(app)); ok {
		text += fmt.Sprintf("; did you mean `rootcell %s`?", near)
	} else {
		text += "; `rootcell --help` lists the commands."
	}
	return &usage{fmt.Sprintf("%s To run it in the agent: `rootcell -- %s`", text, shellLine(rest))}
}

// shellLine is args as a person would type them.
func shellLine(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = shellQuote(a)
	}
	return strings.Join(quoted, " ")
}

func shellQuote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:=@%+,", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
