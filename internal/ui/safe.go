package ui

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Safe writes everything that a terminal would obey or that would deceive a
// reader as an escape sequence of Go: control characters (C0, DEL and C1, so
// that no escape sequence begins), line ends and tabs, bidirectional and other
// format characters, line separators, and bytes that are not UTF-8. Printable
// text of any script stays as it is. Two Safe texts are equal only if they came
// from the same text, apart from escapes written out in the text itself.
//
// Invariant: what Safe returns moves no cursor and changes no state of a
// terminal (FuzzSafe).
func Safe(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !harmless(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case harmless(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += size
	}
	return b.String()
}

// SafeBlock is Safe for text of several lines: line feeds and tabs stay.
func SafeBlock(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		cells := strings.Split(line, "\t")
		for j, cell := range cells {
			cells[j] = Safe(cell)
		}
		lines[i] = strings.Join(cells, "\t")
	}
	return strings.Join(lines, "\n")
}

// harmless reports whether a terminal just shows r. Of what is not a graphic
// character only combining marks and the space are; format characters (Cf)
// have the bidirectional overrides and invisible joiners.
func harmless(r rune) bool {
	return r == ' ' || unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S)
}
