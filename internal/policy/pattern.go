package policy

import (
	"fmt"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

// maxWildcards bounds the work of matching one name against one pattern.
const maxWildcards = 8

// PatternError says why text is not a host pattern, and what to write instead.
type PatternError struct {
	Input string
	Why   string
	Hint  string // may be empty
}

func (e *PatternError) Error() string {
	if e.Hint == "" {
		return fmt.Sprintf("parsing host pattern %+q: %s", e.Input, e.Why)
	}
	return fmt.Sprintf("parsing host pattern %+q: %s; %s", e.Input, e.Why, e.Hint)
}

// Pattern is the host part of a rule: an exact name, a suffix or a glob.
// Patterns are comparable; the zero value matches nothing.
type Pattern struct {
	text string // normal form
	tail string // the literal labels at the end; what the index looks up
	form form
}

type form uint8

const (
	formNone   form = iota
	formExact       // the name itself
	formSuffix      // the name and everything below it
	formGlob        // the glob in text
	formAll         // every name
)

// String returns the normal form of what was parsed.
func (p Pattern) String() string { return p.text }

// Tail returns the literal labels at the end of the pattern: the whole of an
// exact name or suffix, and the empty string when the pattern has none.
func (p Pattern) Tail() string { return p.tail }

// ParseSuffix reads the pattern of a DNS rule: a name that covers itself and
// everything below it, or a lone `*` for every name. Errors are *PatternError.
func ParseSuffix(s string) (Pattern, error) {
	if s == "*" {
		return Pattern{text: s, form: formAll}, nil
	}
	name, err := hostname.ParseUser(s)
	if err != nil {
		return Pattern{}, suffixError(s, err)
	}
	return Pattern{text: name.String(), tail: name.String(), form: formSuffix}, nil
}

func suffixError(s string, err error) error {
	pe := &PatternError{Input: s, Why: why(err)}
	trimmed := strings.TrimLeft(s, "*.")
	name, nameErr := hostname.ParseUser(trimmed)
	switch {
	case s == "**":
		pe.Why, pe.Hint = "it is no DNS rule", "write a lone \"*\" to forward every name"
	case strings.Contains(s, "*") && nameErr == nil:
		pe.Why = "a DNS rule has no wildcard, it always covers what is below it"
		pe.Hint = fmt.Sprintf("write %q", name)
	case strings.Contains(s, "*"):
		pe.Why = "a DNS rule has no wildcard, it always covers what is below it"
		pe.Hint = "write the name that ends all the names you mean"
	case strings.HasPrefix(s, ".") && nameErr == nil:
		pe.Hint = fmt.Sprintf("write %q, which covers what is below it too", name)
	default:
		pe.Hint = normalForm(s)
	}
	return pe
}

// ParseGlob reads the pattern of an HTTPS or SSH rule. `*` stands for one
// label or a part of one, `**` crosses dots. Errors are *PatternError.
func ParseGlob(s string) (Pattern, error) {
	if !strings.Contains(s, "*") {
		name, err := hostname.ParseUser(s)
		if err != nil {
			return Pattern{}, &PatternError{Input: s, Why: why(err), Hint: normalForm(s)}
		}
		return Pattern{text: name.String(), tail: name.String(), form: formExact}, nil
	}
	switch strings.TrimSuffix(s, ".") {
	case "**":
		return Pattern{text: "**", form: formAll}, nil
	case "*":
		return Pattern{}, &PatternError{Input: s, Why: "\"*\" is one label, and no host has a single label",
			Hint: "write \"**\" for every host"}
	}
	if err := checkStars(s); err != nil {
		return Pattern{}, err
	}
	text, err := normaliseGlob(s)
	if err != nil {
		return Pattern{}, err
	}
	if err := checkBareSuffix(s, text); err != nil {
		return Pattern{}, err
	}
	return Pattern{text: text, tail: literalTail(text), form: formGlob}, nil
}

func checkStars(s string) error {
	switch {
	case strings.Contains(s, "***"):
		return &PatternError{Input: s, Why: "it has more than two stars in a row",
			Hint: "\"*\" stays inside a label and \"**\" crosses dots"}
	case strings.Count(strings.ReplaceAll(s, "**", "*"), "*") > maxWildcards:
		return &PatternError{Input: s, Why: fmt.Sprintf("it has more than %d wildcards", maxWildcards),
			Hint: "write several lines, or \"**\""}
	}
	return nil
}

// normaliseGlob brings the literal labels into normal form. A label with a
// wildcard is checked on its own and stands aside as the label "a" meanwhile,
// so that one normaliser sees the whole.
func normaliseGlob(s string) (string, error) {
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	standIn := make([]string, len(labels))
	for i, label := range labels {
		standIn[i] = label
		if strings.Contains(label, "*") {
			standIn[i] = "a"
			if _, err := hostname.Parse(strings.ReplaceAll(label, "*", "a") + ".a"); err != nil {
				return "", &PatternError{Input: s, Why: why(err), Hint: normalForm(s)}
			}
		}
	}
	joined := strings.Join(standIn, ".")
	if len(labels) == 1 {
		// `**x` has one label in its text and more in what it matches.
		joined += ".a"
	}
	name, err := hostname.ParseUser(joined)
	if err != nil {
		return "", &PatternError{Input: s, Why: why(err), Hint: normalForm(s)}
	}
	normal := strings.Split(name.String(), ".")
	if len(labels) == 1 {
		normal = normal[:1]
	}
	if len(normal) != len(labels) {
		return "", &PatternError{Input: s, Why: "it has a dot that is not ASCII", Hint: "write \".\" between labels"}
	}
	for i, label := range labels {
		if strings.Contains(label, "*") {
			normal[i] = strings.ToLower(label)
		}
	}
	return strings.Join(normal, "."), nil
}

// checkBareSuffix refuses a wildcard that is a part of a label anybody can
// register: `*ok.com` matches evilok.com, which belongs to someone else.
func checkBareSuffix(input, text string) error {
	labels := strings.Split(text, ".")
	registrable := len(labels) - 2
	if registrable >= 0 && IsPublicSuffix(strings.Join(labels[registrable:], ".")) {
		registrable--
	}
	if last := labels[len(labels)-1]; len(labels) > 1 && strings.Contains(last, "*") {
		return &PatternError{Input: input, Why: "it ends in a wildcard, and anybody can register a name that this matches",
			Hint: "write the top-level domain out"}
	}
	for i := max(registrable, 0); i < len(labels); i++ {
		label := labels[i]
		if !strings.Contains(label, "*") || strings.Trim(label, "*") == "" {
			continue
		}
		e := &PatternError{Input: input, Why: "anybody can register a name that this matches",
			Hint: "write the names out"}
		if literal := strings.TrimLeft(label, "*"); i == 0 && !strings.Contains(literal, "*") {
			bare := strings.Join(append([]string{literal}, labels[1:]...), ".")
			if name, err := hostname.Parse(bare); err == nil {
				e.Hint = fmt.Sprintf("write %q for the host and \"*.%s\" or \"**.%s\" for what is below it", name, name, name)
			}
		}
		return e
	}
	return nil
}

// literalTail returns the labels after the last wildcard.
func literalTail(text string) string {
	rest := text[strings.LastIndexByte(text, '*')+1:]
	_, tail, _ := strings.Cut(rest, ".")
	return tail
}

// Match reports whether the pattern stands for the name.
func (p Pattern) Match(name hostname.Name) bool {
	return !name.IsZero() && p.matchText(name.String())
}

func (p *Pattern) matchText(host string) bool {
	switch {
	case p.form == formAll:
		return true
	case p.form == formExact:
		return host == p.text
	case p.form == formSuffix:
		return host == p.text || strings.HasSuffix(host, p.text) && host[len(host)-len(p.text)-1] == '.'
	case p.form == formGlob:
		return matchGlob(p.text, host)
	}
	return false
}

// matchGlob matches by going back to the last `*` and, when that would have to
// cross a dot, to the last `**`. A `**` can take over whatever came before it,
// so nothing older has to be remembered: the work is at most len(host) squared.
func matchGlob(glob, host string) bool {
	g, h := 0, 0
	starG, starH := -1, 0 // after the last `*`, and what it has taken
	deepG, deepH := -1, 0 // the same for `**`
	for {
		switch {
		case strings.HasPrefix(glob[g:], "**"):
			g += 2
			deepG, deepH, starG = g, h, -1
			continue
		case g < len(glob) && glob[g] == '*':
			g++
			starG, starH = g, h
			continue
		case g < len(glob) && h < len(host) && glob[g] == host[h]:
			g++
			h++
			continue
		case g == len(glob) && h == len(host):
			return true
		}
		switch {
		case starG >= 0 && starH < len(host) && host[starH] != '.':
			starH++
			g, h = starG, starH
		case deepG >= 0 && deepH < len(host):
			deepH++
			g, h, starG = deepG, deepH, -1
		default:
			return false
		}
	}
}

func why(err error) string {
	if pe, ok := err.(*hostname.ParseError); ok {
		return pe.Why
	}
	return err.Error()
}
