package policyfile

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// Add appends the rule `host` or, for HTTPS with a path regex, `host path` to
// the text of a list, and leaves the rest of the text as it is, comments and
// line ends included. Nothing changes when the list already allows all that
// the rule would allow; so Add is idempotent. It is an error, of a kind that a
// person can act on, when the list or the rule is not valid, and when the rule
// would not do what allowing means: a line without a regex gives nothing where
// path rules apply, and a first path rule takes away what a line without one
// allows.
func Add(kind policy.Kind, text, host, path string) (out string, changed bool, err error) {
	rule, err := newRule(kind, host, path)
	if err != nil {
		return text, false, err
	}
	rules, problems := Parse(kind, FileName(kind), []byte(text))
	if err := problems.Err(); err != nil {
		return text, false, err
	}
	for _, r := range rules {
		if r.String() == rule.String() {
			return text, false, nil
		}
	}
	covered, err := checkEffect(kind, rules, rule)
	if covered || err != nil {
		return text, false, err
	}
	eol := "\n"
	if strings.Contains(text, "\r\n") {
		eol = "\r\n"
	}
	if text != "" && text != bom && !strings.HasSuffix(text, "\n") {
		text += eol
	}
	return text + rule.String() + eol, true, nil
}

// checkEffect reports whether the rules cover a rule for one name already, and
// fails when adding it would not widen them. A rule for more than one name is
// only checked for what it would take away.
func checkEffect(kind policy.Kind, rules []policy.Rule, rule policy.Rule) (covered bool, err error) {
	p := policy.New(policy.Rules{kind: rules})
	name, err := hostname.Parse(rule.Host.String())
	if err == nil {
		return checkName(rule, p.Matching(kind, name))
	}
	if rule.Path == nil {
		return false, nil
	}
	for _, r := range rules {
		name, err := hostname.Parse(r.Host.String())
		if err != nil || !rule.Host.Match(name) {
			continue
		}
		if _, err := checkName(rule, p.Matching(kind, name)); err != nil {
			return false, err
		}
	}
	return false, nil
}

// checkName does so for one name, given the rules that match it.
func checkName(rule policy.Rule, matching []policy.Rule) (covered bool, err error) {
	if len(matching) == 0 {
		return false, nil
	}
	for _, r := range matching {
		if r.Path == nil {
			continue
		}
		if rule.Path == nil {
			return false, fmt.Errorf("adding %q: the path rule %s applies to it, so a line without a regex gives nothing; "+
				"remove that line, or add what you need as a path rule too", rule, r.Where)
		}
		return false, nil
	}
	if rule.Path != nil {
		return false, fmt.Errorf("adding %q: %s allows every request to %s, and a path rule would take the others away; "+
			"replace that line if this is what you want", rule, matching[0].Where, matching[0].Host)
	}
	return true, nil
}

// Remove deletes every line whose rule is `host`, or `host path`, in whatever
// spelling, together with the comment on that line. All other lines stay byte
// for byte.
func Remove(kind policy.Kind, text, host, path string) (out string, changed bool, err error) {
	rule, err := newRule(kind, host, path)
	if err != nil {
		return text, false, err
	}
	l := scan(kind, FileName(kind), []byte(text))
	if err := l.problems.Err(); err != nil {
		return text, false, err
	}
	drop := make(map[int]bool)
	for _, r := range l.lines {
		if r.String() == rule.String() {
			drop[r.number] = true
		}
	}
	if len(drop) == 0 {
		return text, false, nil
	}
	var kept strings.Builder
	if strings.HasPrefix(text, bom) {
		kept.WriteString(bom)
	}
	number := 0
	for line := range strings.SplitAfterSeq(strings.TrimPrefix(text, bom), "\n") {
		if number++; !drop[number] {
			kept.WriteString(line)
		}
	}
	return kept.String(), true, nil
}

// newRule checks what is to be written by reading it as it will be read.
//
// Invariant: what a caller passes becomes one line and one rule, never more
// (TestAddCannotSmuggleLines).
func newRule(kind policy.Kind, host, path string) (policy.Rule, error) {
	line := host
	if path != "" {
		line = host + " " + path
	}
	if f := splitLine(line); f.host != host || f.rest != path || strings.ContainsAny(line, "\r\n"+bom) {
		return policy.Rule{}, fmt.Errorf("reading %s: it is not one rule; write one host, and for HTTPS a regex after it", quote(line))
	}
	rule, problems := ParseLine(kind, "rule", line)
	return rule, problems.Err()
}

// ExactPath returns the regex of the path rule that allows exactly one method
// and target, as a listener reports them.
func ExactPath(method, target string) string {
	return regexp.QuoteMeta(method+" "+target) + "$"
}
