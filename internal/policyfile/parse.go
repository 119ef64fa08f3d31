package policyfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

const (
	// MaxBytes is the size of the largest list.
	MaxBytes = 8 << 20
	// MaxLine is the length of the longest line, in bytes.
	MaxLine = 4096
	// MaxPathRules is how many regexes one list may have. Each takes memory in
	// the firewall, and all that apply to a host are tried on each request.
	MaxPathRules = 10_000
)

// The names of the three lists.
const (
	DNSFile   = "allowed-dns.txt"
	HTTPSFile = "allowed-https.txt"
	SSHFile   = "allowed-ssh.txt"
)

// FileName returns the base name of the list of a kind, "" for no kind.
func FileName(kind policy.Kind) string {
	switch kind {
	case policy.KindDNS:
		return DNSFile
	case policy.KindHTTPS:
		return HTTPSFile
	case policy.KindSSH:
		return SSHFile
	}
	return ""
}

// KindOf returns the kind of the list with that base name.
func KindOf(fileName string) (policy.Kind, bool) {
	for _, kind := range policy.Kinds() {
		if FileName(kind) == fileName {
			return kind, true
		}
	}
	return "", false
}

// Parse reads one list. The rules are nil when there is an error: a list with
// an error counts for nothing (TestOneBadLineRefusesTheWholeFile). fileName is
// what problems and decisions call the list.
func Parse(kind policy.Kind, fileName string, text []byte) ([]policy.Rule, Problems) {
	l := scan(kind, fileName, text)
	if len(l.problems.Errors()) > 0 {
		return nil, l.problems
	}
	l.lintOverlap()
	return l.rules(), l.problems
}

// list is a parsed text: its rules with their lines, and what is wrong.
type list struct {
	kind     policy.Kind
	file     string
	lines    []ruleLine
	problems Problems
}

type ruleLine struct {
	policy.Rule
	number int // from 1
	column int // of the host
}

func (l *list) rules() []policy.Rule {
	rules := make([]policy.Rule, len(l.lines))
	for i, line := range l.lines {
		rules[i] = line.Rule
	}
	return rules
}

func (l *list) report(line, column int, what, hint string) {
	l.problems = append(l.problems, Problem{File: l.file, Line: line, Column: column, What: what, Hint: hint})
}

func (l *list) warn(line, column int, what, hint string) {
	l.problems = append(l.problems, Problem{File: l.file, Line: line, Column: column, What: what, Hint: hint, Warning: true})
}

func scan(kind policy.Kind, fileName string, text []byte) *list {
	l := &list{kind: kind, file: fileName}
	if p, bad := checkEncoding(text); bad {
		p.File = fileName
		l.problems = Problems{p}
		return l
	}
	body := strings.TrimPrefix(string(text), bom)
	regexes, number := 0, 0
	for line := range strings.SplitSeq(body, "\n") {
		number++
		r, ok := l.scanLine(number, strings.TrimSuffix(line, "\r"))
		if !ok {
			continue
		}
		if r.Path != nil {
			regexes++
		}
		if regexes > MaxPathRules {
			l.report(number, 1, fmt.Sprintf("the list has more than %d regexes", MaxPathRules), "join some with \"|\"")
			break
		}
		l.lines = append(l.lines, r)
	}
	return l
}

const bom = "\ufeff"

// checkEncoding finds what makes a text as a whole no list.
func checkEncoding(text []byte) (Problem, bool) {
	if len(text) > MaxBytes {
		return Problem{What: fmt.Sprintf("the list is larger than %d MiB", MaxBytes>>20), Hint: "use globs instead of long enumerations"}, true
	}
	if bytes.HasPrefix(text, []byte{0xff, 0xfe}) || bytes.HasPrefix(text, []byte{0xfe, 0xff}) {
		return Problem{Line: 1, Column: 1, What: "the list is UTF-16", Hint: "save it as UTF-8"}, true
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		before := text[:i]
		start := bytes.LastIndexByte(before, '\n') + 1
		return Problem{Line: bytes.Count(before, []byte{'\n'}) + 1, Column: utf8.RuneCount(before[start:]) + 1,
			What: "the list has a NUL byte", Hint: "save it as UTF-8 text"}, true
	}
	return Problem{}, false
}

// scanLine parses one line without its end. ok is false for a line without a
// rule; what is wrong is reported.
func (l *list) scanLine(number int, line string) (r ruleLine, ok bool) {
	if len(line) > MaxLine {
		l.report(number, 1, fmt.Sprintf("the line is longer than %d bytes", MaxLine), "write several lines")
		return r, false
	}
	if column, what, bad := checkCharacters(line); bad {
		l.report(number, column, what, "retype the line with plain characters")
		return r, false
	}
	f := splitLine(line)
	if f.host == "" {
		return r, false
	}
	r = ruleLine{number: number, column: column(line, f.hostAt)}
	r.Where = fmt.Sprintf("%s:%d", l.file, number)
	host, hostOK := l.scanHost(r, f)
	path, pathOK := l.scanRest(r, line, f)
	r.Host, r.Path = host, path
	return r, hostOK && pathOK
}

func (l *list) scanHost(r ruleLine, f fields) (policy.Pattern, bool) {
	parse := policy.ParseGlob
	if l.kind == policy.KindDNS {
		parse = policy.ParseSuffix
	}
	host, err := parse(f.host)
	if err == nil {
		l.lintHost(r.number, r.column, host)
		l.lintScripts(r.number, r.column, f.host, host)
		return host, true
	}
	what, hint := fmt.Sprintf("%s is not a host", quote(f.host)), ""
	var pe *policy.PatternError
	if errors.As(err, &pe) {
		what, hint = fmt.Sprintf("%s is not a host: %s", quote(f.host), pe.Why), pe.Hint
		if strings.Contains(f.host, "*") {
			what = fmt.Sprintf("%s is not a rule: %s", quote(f.host), pe.Why)
		}
	}
	if before, _, found := strings.Cut(f.host, "#"); found && before != "" {
		hint = "put a space before the \"#\" of a comment"
	}
	l.report(r.number, r.column, what, hint)
	return policy.Pattern{}, false
}

// scanRest reads what follows the host: nothing, a comment or, for HTTPS, a
// regex.
func (l *list) scanRest(r ruleLine, line string, f fields) (*policy.Path, bool) {
	if f.rest == "" {
		return nil, true
	}
	restColumn := column(line, f.restAt)
	if l.kind != policy.KindHTTPS {
		l.report(r.number, restColumn, fmt.Sprintf("%s follows the host, and a line of this list is one host", quote(f.rest)),
			"write one host a line, and \" #\" before a comment")
		return nil, false
	}
	if i := indexComment(f.rest); i >= 0 {
		l.report(r.number, column(line, f.restAt+i), "a comment cannot follow a regex, which runs to the end of the line",
			"put the comment on a line of its own")
		return nil, false
	}
	path, err := policy.CompilePath(f.rest)
	if err != nil {
		at, what, hint := 0, err.Error(), ""
		var pe *policy.PathError
		if errors.As(err, &pe) {
			at, what, hint = pe.At, "the regex is not valid: "+pe.Why, pe.Hint
		}
		l.report(r.number, column(line, f.restAt+min(at, len(f.rest))), what, hint)
		return nil, false
	}
	return path, l.lintPath(r.number, restColumn, f.rest)
}

// quote escapes and shortens what a person or a client wrote.
func quote(s string) string {
	const limit = 80
	if len(s) > limit {
		return fmt.Sprintf("%+q…", s[:limit])
	}
	return fmt.Sprintf("%+q", s)
}
