package policyfile

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const blank = " \t"

// fields are the parts of a line: both empty for a blank line or a comment.
type fields struct {
	host, rest     string // rest is empty when a comment follows the host
	hostAt, restAt int    // byte offsets
}

// splitLine cuts a line at white space and leaves comments out.
func splitLine(line string) fields {
	var f fields
	f.hostAt = len(line) - len(strings.TrimLeft(line, blank))
	body := strings.TrimRight(line[f.hostAt:], blank)
	if body == "" || body[0] == '#' {
		return fields{}
	}
	end := strings.IndexAny(body, blank)
	if end < 0 {
		f.host = body
		return f
	}
	f.host = body[:end]
	rest := strings.TrimLeft(body[end:], blank)
	f.restAt = f.hostAt + len(body) - len(rest)
	if rest[0] != '#' {
		f.rest = rest
	}
	return f
}

// indexComment finds white space followed by `#`, and returns the offset of
// the `#`, -1 if there is none.
func indexComment(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] == '#' && strings.IndexByte(blank, s[i-1]) >= 0 {
			return i
		}
	}
	return -1
}

// column counts characters, as editors do.
func column(line string, offset int) int { return utf8.RuneCountInString(line[:offset]) + 1 }

// checkCharacters refuses what would make a line look other than it is, in
// comments too: control characters, bytes that are not UTF-8, characters that
// reorder or hide text. Outside comments nothing but space and tab is blank.
func checkCharacters(line string) (at int, what string, bad bool) {
	inRule := true
	column := 0
	previous := ' '
	for i, r := range line {
		column++
		if r == '#' && (previous == ' ' || previous == '\t') {
			inRule = false
		}
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(line[i:], string(utf8.RuneError)):
			return column, "the line is not valid UTF-8", true
		case r == '\t':
		case unicode.IsControl(r):
			return column, fmt.Sprintf("the line has the control character %U", r), true
		case unicode.Is(unicode.Bidi_Control, r), r == 0x2028, r == 0x2029:
			return column, fmt.Sprintf("the line has the character %U, which changes the order of text on the screen", r), true
		case inRule && r != ' ' && (unicode.IsSpace(r) || unicode.Is(unicode.Cf, r)):
			return column, fmt.Sprintf("the line has the invisible character %U", r), true
		}
		previous = r
	}
	return 0, "", false
}
