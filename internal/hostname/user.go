package hostname

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// ParseUser reads a name as a person writes it in a file or a command: like
// Parse, and names outside ASCII become A-labels (IDNA 2008 with the mapping
// of UTS 46, non-transitional). Errors are *ParseError.
//
// Invariant: on ASCII input ParseUser and Parse agree (FuzzParseUser), so
// `xn--` labels are compared as they are and never decoded.
func ParseUser(s string) (Name, error) {
	if isASCII(s) {
		return Parse(s)
	}
	// What is not UTF-8 reads as U+FFFD, which IDNA would take for a letter.
	if strings.ContainsRune(s, utf8.RuneError) {
		return Name{}, &ParseError{Input: s, Why: "it is not valid UTF-8"}
	}
	ascii, err := userProfile().ToASCII(s)
	if err != nil || !isASCII(ascii) {
		return Name{}, &ParseError{Input: s, Why: "it is not a valid international name (IDNA)"}
	}
	name, err := Parse(ascii)
	if err != nil {
		return Name{}, &ParseError{Input: s, Why: err.(*ParseError).Why}
	}
	return name, nil
}

func userProfile() *idna.Profile {
	return idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.Transitional(false))
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}
