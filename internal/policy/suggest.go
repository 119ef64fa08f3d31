package policy

import (
	"fmt"
	"strings"
)

// normalForm guesses the host a person meant by a URL, an authority, an
// address in brackets or a name with dots too many, and returns a hint that
// spells it; the hint is empty when there is nothing to suggest.
func normalForm(s string) string {
	host := s
	if scheme, rest, found := strings.Cut(host, "://"); found && !strings.ContainsAny(scheme, "/?#") {
		host = rest
	}
	host = strings.TrimPrefix(host, "//")
	if i := strings.IndexAny(host, `/?#\`); i >= 0 {
		host = host[:i]
	}
	host = host[strings.LastIndexByte(host, '@')+1:]
	host, _, _ = strings.Cut(host, ":")
	host = strings.Trim(host, ".,;\"'`<>()")
	if host == s {
		return ""
	}
	p, err := ParseGlob(host)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("write %q", p)
}
