package policy

import (
	"strings"
	"unicode/utf8"
)

// AmbiguousTarget reports whether the path of target can be read in more than
// one way: by a server that decodes, merges or resolves what another takes as
// it stands. Where path rules apply such a request is denied, because the rule
// would be matched against one reading and the server might act on another.
// The query is opaque and is not looked at. The package documentation lists
// what counts.
func AmbiguousTarget(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	if path == "*" {
		return false
	}
	if !strings.HasPrefix(path, "/") || hasAmbiguousByte(path) || hasAmbiguousEncoding(path) {
		return true
	}
	rest := path[1:]
	for {
		segment, after, more := strings.Cut(rest, "/")
		if segment == "." || segment == ".." || segment == "" && more {
			return true
		}
		if !more {
			return false
		}
		rest = after
	}
}

// onlyEncodedSlashes reports whether encoded slashes are all that makes the
// path of target ambiguous, and decoding them would make no segment that is
// empty or of dots.
func onlyEncodedSlashes(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	return strings.Contains(strings.ToLower(path), "%2f") &&
		!AmbiguousTarget(replaceEncodedSlashes(path, "x")) && !AmbiguousTarget(replaceEncodedSlashes(path, "/"))
}

func replaceEncodedSlashes(path, with string) string {
	return strings.NewReplacer("%2f", with, "%2F", with).Replace(path)
}

// hasAmbiguousByte looks for bytes that stand for something other than
// themselves somewhere: `\` is a slash to some servers, `;` begins parameters
// that some strip, and raw bytes outside printable ASCII depend on a charset.
func hasAmbiguousByte(path string) bool {
	for i := range len(path) {
		switch c := path[i]; {
		case c <= ' ', c >= 0x7f, c == '\\', c == ';', c == '#':
			return true
		}
	}
	return false
}

// hasAmbiguousEncoding looks for percent-encodings that change meaning when
// decoded once more or once less, and for ones that need not be there.
func hasAmbiguousEncoding(path string) bool {
	var raw []byte // decoded bytes of an unbroken run outside ASCII
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			if ambiguousText(raw) {
				return true
			}
			raw = raw[:0]
			continue
		}
		c, ok := unhex(path[i+1:])
		if !ok {
			return true
		}
		i += 2
		switch {
		case c >= utf8.RuneSelf:
			raw = append(raw, c)
			continue
		case c < ' ', c == 0x7f, isUnreserved(c), strings.IndexByte(`/\;?#`, c) >= 0:
			return true
		case c == '%':
			// `%25` alone is a percent sign; `%252e` and `%25u002e` wait for a
			// second decoding.
			rest := path[i+1:]
			if _, hex := unhex(rest); hex || strings.HasPrefix(rest, "u") || strings.HasPrefix(rest, "U") {
				return true
			}
		}
		if ambiguousText(raw) {
			return true
		}
		raw = raw[:0]
	}
	return ambiguousText(raw)
}

func unhex(s string) (byte, bool) {
	if len(s) < 2 {
		return 0, false
	}
	hi, lo := nibble(s[0]), nibble(s[1])
	return hi<<4 | lo, hi < 16 && lo < 16
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return (c | 0x20) - 'a' + 10
	}
	return 0xff
}

// isUnreserved implements RFC 3986, 2.3: these characters mean the same
// encoded or not (6.2.2.2), so their encoding only serves to dodge a rule.
func isUnreserved(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// ambiguousText reports whether decoded bytes outside ASCII are not UTF-8
// (over-long forms of `.` and `/` are not) or have a character that
// compatibility normalisation turns into ASCII that matters in a path.
func ambiguousText(raw []byte) bool {
	for len(raw) > 0 {
		r, size := utf8.DecodeRune(raw)
		if r == utf8.RuneError && size == 1 || foldsToDelimiter(r) {
			return true
		}
		raw = raw[size:]
	}
	return false
}

// foldsToDelimiter lists the characters whose NFKC form holds one of
// `. / \ ; ? # %` (TestFoldsToDelimiterIsComplete): dot leaders, fullwidth and
// small forms, "account of" and its kin.
func foldsToDelimiter(r rune) bool {
	switch r {
	case 0x037E, 0x2024, 0x2025, 0x2026, 0x2047, 0x2048, 0x2049, 0x2100, 0x2101, 0x2105, 0x2106,
		0x33C2, 0x33C7, 0x33D8, 0xFE14, 0xFE16, 0xFE19, 0xFE30, 0xFE52, 0xFE54, 0xFE56, 0xFE5F, 0xFE68, 0xFE6A,
		0xFF03, 0xFF05, 0xFF0E, 0xFF0F, 0xFF1B, 0xFF1F, 0xFF3C, 0x1F100:
		return true
	}
	return 0x2488 <= r && r <= 0x249B
}
