// Package hostname is the one normaliser for host names and authorities. What
// it returns is the key that policy, certificates, resolution and the audit
// log share, so a name has exactly one spelling everywhere.
package hostname

import (
	"fmt"
	"strings"
)

const (
	// MaxLength is the longest name in its presentation form without the
	// trailing dot (RFC 1035, 2.3.4: 255 octets on the wire).
	MaxLength = 253
	// MaxLabel is the longest label (RFC 1035, 2.3.4).
	MaxLabel = 63
)

// Name is a normalised host name: lower-case letters, digits and hyphens in
// at least two labels, without a trailing dot. Names are comparable. The zero
// value is no name, and only it prints as the empty string.
type Name struct{ s string }

// String returns the normal form.
func (n Name) String() string { return n.s }

// IsZero reports whether n is no name.
func (n Name) IsZero() bool { return n.s == "" }

// ParseError says why text is not a host name or an authority.
type ParseError struct {
	Input string // as given; Error quotes and shortens it
	Why   string // what is wrong, in words for the person who wrote it
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("parsing host name %s: %s", quote(e.Input), e.Why)
}

// quote escapes and shortens s: names arrive from hostile clients and end up
// in logs and on terminals.
func quote(s string) string {
	const limit = 80
	if len(s) <= limit {
		return fmt.Sprintf("%+q", s)
	}
	return fmt.Sprintf("%+q (and %d bytes more)", s[:limit], len(s)-limit)
}

// Parse reads a name as it arrives on the wire. It lower-cases ASCII letters,
// removes at most one trailing dot, and refuses everything that is not a
// dotted host name of letters, digits and hyphens: other bytes, underscores,
// empty or over-long labels, single labels, and IP literals in any spelling.
// Errors are *ParseError.
//
// Invariant: what Parse returns it accepts again unchanged (FuzzParse).
func Parse(s string) (Name, error) {
	host := strings.TrimSuffix(s, ".")
	if why := check(host); why != "" {
		return Name{}, &ParseError{Input: s, Why: why}
	}
	return Name{lower(host)}, nil
}

// check says what keeps host, already without its trailing dot, from being a
// name; it is empty when nothing does.
func check(host string) string {
	switch {
	case host == "":
		return "it is empty"
	case len(host) > MaxLength:
		return fmt.Sprintf("it is longer than %d characters", MaxLength)
	case strings.HasPrefix(host, "["):
		return "it is an IP address, and rules are about names"
	}
	last, labels := "", 0
	for label := range strings.SplitSeq(host, ".") {
		if why := checkLabel(label); why != "" {
			return why
		}
		last = label
		labels++
	}
	// Resolvers and URL parsers read a last part that is a number, in decimal,
	// octal or hexadecimal, as the end of an IPv4 address (WHATWG URL, "ends in
	// a number"); no top-level domain looks like that.
	if endsInNumber(last) {
		return "it is an IP address or ends like one, and rules are about names"
	}
	if labels < 2 {
		return "it has a single label, and only full names such as host.example.com count"
	}
	return ""
}

func checkLabel(label string) string {
	if label == "" {
		return "it has an empty label"
	}
	for i := range len(label) {
		switch c := label[i]; {
		case isLDH(c):
		case c == '_':
			return "it has an underscore, which host names do not have"
		case c == ':':
			return "it has a colon, and neither a port nor an IPv6 address is part of a name"
		case c == '@':
			return "it has an '@', and a user is not part of a name"
		case c >= 0x80:
			return "it is not ASCII"
		default:
			return fmt.Sprintf("it has the character %+q", rune(c))
		}
	}
	switch {
	case len(label) > MaxLabel:
		return fmt.Sprintf("it has a label longer than %d characters", MaxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return "it has a label that begins or ends with a hyphen"
	}
	return ""
}

func isLDH(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-'
}

func endsInNumber(label string) bool {
	if len(label) >= 2 && label[0] == '0' && label[1]|0x20 == 'x' {
		return true
	}
	return strings.Trim(label, "0123456789") == ""
}

// lower returns s itself, without allocating, when nothing is to be lowered.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}
