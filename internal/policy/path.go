package policy

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

const (
	// maxPathSource is the longest regex of a path rule, in bytes.
	maxPathSource = 2048
	// maxPathProgram is the most instructions one regex may compile to. The
	// firewall has little memory, and `(abcdefghijk){1000}` is short.
	maxPathProgram = 10_000
)

// Path is the compiled regex of a path rule. It is safe for concurrent use.
type Path struct {
	source string
	re     *regexp.Regexp
	// slashes is true when the regex spells an encoded slash, so that whoever
	// wrote it had targets with encoded slashes in view.
	slashes bool
}

// PathError says why text is not the regex of a path rule.
type PathError struct {
	Source string
	At     int // byte offset of what is wrong in Source
	Why    string
	Hint   string // may be empty
}

func (e *PathError) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("compiling path regex %+q: %s", e.Source, e.Why)
	}
	return fmt.Sprintf("compiling path regex %+q: %s; %s", e.Source, e.Why, e.Hint)
}

// CompilePath compiles the regex of a path rule, RE2 as Go's package regexp
// has it, so that it is matched from the start of `METHOD /path?query` in time
// linear in the length of that. Errors are *PathError and name the constructs
// that other dialects have and RE2 lacks.
func CompilePath(source string) (*Path, error) {
	if len(source) > maxPathSource {
		return nil, &PathError{Source: source[:80], At: maxPathSource,
			Why: fmt.Sprintf("it is longer than %d bytes", maxPathSource), Hint: "write several lines"}
	}
	if e := checkDialect(source); e != nil {
		return nil, e
	}
	// The user's text is parsed by itself first: `a)(?:b` must not become
	// valid through the parentheses around it.
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil, syntaxError(source, err)
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, &PathError{Source: source, Why: err.Error()}
	}
	if len(prog.Inst) > maxPathProgram {
		return nil, &PathError{Source: source, Why: "its repetitions make it too large", Hint: "lower the counts in {…}"}
	}
	// Invariant: a rule matches from the first byte of the method, never from
	// the middle of a path or query (TestPathRulesAreAnchored).
	re, err := regexp.Compile(`\A(?:` + source + `)`)
	if err != nil {
		return nil, syntaxError(source, err)
	}
	return &Path{source: source, re: re, slashes: spellsSlash(source)}, nil
}

// spellsSlash looks for `%2f`, `%2F` and `%2[fF]`.
func spellsSlash(source string) bool {
	source = strings.ToLower(source)
	return strings.Contains(source, "%2f") || strings.Contains(source, "%2[ff]")
}

// String returns the source of the regex.
func (p *Path) String() string { return p.source }

// Match reports whether the regex matches the request from its start.
func (p *Path) Match(method, target string) bool {
	return p.re.MatchString(method + " " + target)
}

func syntaxError(source string, err error) *PathError {
	e := &PathError{Source: source, Why: err.Error()}
	if se, ok := err.(*syntax.Error); ok {
		e.Why = se.Code.String()
		if se.Expr != "" {
			e.Why = fmt.Sprintf("%s: `%s`", se.Code, se.Expr)
		}
		if i := strings.Index(source, se.Expr); i > 0 {
			e.At = i
		}
	}
	return e
}
