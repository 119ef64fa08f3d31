package policy

import (
	"fmt"
	"strings"
)

// group constructs that Python's re (or Perl) has and RE2 lacks, by what
// follows the opening parenthesis; the longest prefix comes first.
var foreignGroups = []struct{ prefix, name, hint string }{
	{"(?=", "a lookahead", "match what follows as a part of the regex"},
	{"(?!", "a negative lookahead", "write a line for each thing you do allow: rules only ever allow"},
	{"(?<=", "a lookbehind", "match what comes before as a part of the regex"},
	{"(?<!", "a negative lookbehind", "write a line for each thing you do allow: rules only ever allow"},
	{"(?>", "an atomic group", "write \"(?:…)\": matching takes linear time without it"},
	{"(?P=", "a named backreference", "repeat the expression"},
	{"(?P>", "a recursion", "write the expression out"},
	{"(?(", "a conditional group", "write one line for each case"},
	{"(?#", "a comment group", "put the comment on a line of its own"},
	{"(?|", "a branch reset group", "write \"(?:…)\""},
	{"(?R", "a recursion", "write the expression out"},
	{"(?&", "a recursion", "write the expression out"},
	{"(*", "a control verb", "leave it out"},
}

var foreignEscapes = map[byte]struct{ name, hint string }{
	'Z': {"the end anchor \\Z", "write \"$\" or \"\\z\""},
	'G': {"the anchor \\G", "leave it out: a rule always matches from the start"},
	'K': {"the reset \\K", "leave it out"},
	'R': {"the line break \\R", "leave it out: a request target has no line breaks"},
	'X': {"the grapheme cluster \\X", "write \".\""},
	'h': {"the white space \\h", "write \" \""},
	'H': {"the white space \\H", "write \"[^ ]\""},
	'N': {"the named character \\N", "write the character"},
	'g': {"the backreference \\g", "repeat the expression"},
	'k': {"the backreference \\k", "repeat the expression"},
	'u': {"the escape \\u", "write \"\\x{…}\""},
	'U': {"the escape \\U", "write \"\\x{…}\""},
	'e': {"the escape \\e", "a request target has no control characters"},
	'c': {"the escape \\c", "a request target has no control characters"},
}

// checkDialect names the first construct of another dialect, so that a list
// carried over from Python says what to change instead of "invalid syntax".
func checkDialect(source string) *PathError {
	inClass := false
	for i := 0; i < len(source); i++ {
		rest := source[i:]
		switch {
		case strings.HasPrefix(rest, `\Q`) && !inClass:
			end := strings.Index(rest, `\E`)
			if end < 0 {
				return &PathError{Source: source, At: i, Why: "the quotation `\\Q` has no end", Hint: "write \"\\E\" after it"}
			}
			i += end + 1
		case rest[0] == '\\':
			if e := checkEscape(source, i, inClass); e != nil {
				return e
			}
			i++
		case inClass:
			if strings.HasPrefix(rest, "[:") {
				if end := strings.Index(rest, ":]"); end > 0 {
					i += end + 1
				}
			} else if rest[0] == ']' {
				inClass = false
			}
		case rest[0] == '[':
			inClass = true
			i += len(classOpening(rest)) - 1
		case rest[0] == '(':
			for _, g := range foreignGroups {
				if strings.HasPrefix(rest, g.prefix) {
					return foreign(source, i, g.name, g.prefix, g.hint)
				}
			}
			if flag, ok := foreignFlag(rest); ok {
				return foreign(source, i, "the flag "+flag, "(?"+flag, "leave it out; RE2 has the flags i, m, s and U")
			}
		case strings.HasPrefix(rest, "{,") && quantifierLength(rest) > 3:
			// RE2 would take it for the characters themselves.
			text := rest[:quantifierLength(rest)]
			return foreign(source, i, "a repetition without a lower bound", text, fmt.Sprintf("write %q", "{0"+text[1:]))
		case isQuantifier(rest) && i > 0:
			n := quantifierLength(rest)
			if i+n < len(source) && source[i+n] == '+' {
				return foreign(source, i, "a possessive quantifier", rest[:n+1],
					fmt.Sprintf("write %q: matching takes linear time without it", rest[:n]))
			}
			i += n - 1
			if i+1 < len(source) && source[i+1] == '?' {
				i++
			}
		}
	}
	return nil
}

// foreignFlag finds an inline flag of Python's re that RE2 lacks.
func foreignFlag(rest string) (flag string, ok bool) {
	flags, isFlags := strings.CutPrefix(rest, "(?")
	if !isFlags {
		return "", false
	}
	for i := range len(flags) {
		switch flags[i] {
		case 'a', 'L', 'u', 'x':
			return flags[i : i+1], true
		case 'i', 'm', 's', 'U', '-':
		default:
			return "", false
		}
	}
	return "", false
}

// classOpening is the start of a class up to where a `]` would close it: one
// that comes first, also after `^`, stands for itself.
func classOpening(rest string) string {
	n := 1
	if n < len(rest) && rest[n] == '^' {
		n++
	}
	if n < len(rest) && rest[n] == ']' {
		n++
	}
	return rest[:n]
}

func checkEscape(source string, i int, inClass bool) *PathError {
	if i+1 == len(source) {
		return &PathError{Source: source, At: i, Why: "it ends in a backslash", Hint: "write \"\\\\\" for a backslash itself"}
	}
	c := source[i+1]
	if '1' <= c && c <= '9' && !inClass {
		return foreign(source, i, "a backreference", source[i:i+2], "repeat the expression")
	}
	if f, ok := foreignEscapes[c]; ok {
		return foreign(source, i, f.name, source[i:i+2], f.hint)
	}
	return nil
}

func isQuantifier(s string) bool { return quantifierLength(s) > 0 }

// quantifierLength is the length of the `*`, `+`, `?` or `{n,m}` at the start
// of s, 0 if there is none.
func quantifierLength(s string) int {
	switch s[0] {
	case '*', '+', '?':
		return 1
	case '{':
		end := strings.IndexByte(s, '}')
		if end > 1 && strings.Trim(s[1:end], "0123456789,") == "" {
			return end + 1
		}
	}
	return 0
}

func foreign(source string, at int, name, text, hint string) *PathError {
	return &PathError{Source: source, At: at, Why: fmt.Sprintf("it uses %s, `%s`, which RE2 lacks", name, text), Hint: hint}
}
