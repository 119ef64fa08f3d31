package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

// Rule is one line of a list.
type Rule struct {
	Host  Pattern
	Path  *Path  // nil: every request to the host
	Where string // what decisions, logs and denials call it: "allowed-https.txt:12"
}

// String returns the rule as a line in normal form.
func (r Rule) String() string {
	if r.Path == nil {
		return r.Host.String()
	}
	return r.Host.String() + " " + r.Path.String()
}

// Rules holds the rules of each kind. A kind that is present without rules
// denies everything with no-rule; a kind that is absent, because its list is
// missing or bad, denies everything with bad-policy.
type Rules map[Kind][]Rule

// Request is an HTTP request as it will be sent upstream.
type Request struct {
	Host   hostname.Name
	Method string // case-sensitive token
	Target string // origin-form, path and query byte for byte
}

// Decision is what a policy says about one flow or request.
type Decision struct {
	Allow  bool
	Reason Reason // empty when allowed
	Rule   string // Where of the rule that decided; empty when none did
}

// Deny returns the denial for reason, for what is decided outside the lists.
func Deny(reason Reason) Decision { return Decision{Reason: reason} }

// Policy is the compiled form of three lists. It never changes after New and
// is safe for concurrent use. A nil Policy denies everything with bad-policy.
type Policy struct {
	kinds map[Kind]*index
}

// New compiles rules. It keeps no reference to the map or its slices.
func New(rules Rules) *Policy {
	p := &Policy{kinds: make(map[Kind]*index, len(rules))}
	for kind, list := range rules {
		p.kinds[kind] = newIndex(list)
	}
	return p
}

func (p *Policy) index(kind Kind) *index {
	if p == nil {
		return nil
	}
	return p.kinds[kind]
}

// Loaded reports whether the policy has a list of the kind, and how many rules
// that holds.
func (p *Policy) Loaded(kind Kind) (rules int, ok bool) {
	ix := p.index(kind)
	if ix == nil {
		return 0, false
	}
	return ix.count, true
}

// DNS decides whether a name may be resolved.
func (p *Policy) DNS(name hostname.Name) Decision { return p.host(KindDNS, name) }

// SSH decides whether a tunnel to port 22 of a host may be opened.
func (p *Policy) SSH(name hostname.Name) Decision { return p.host(KindSSH, name) }

// TLS decides at the ClientHello, before there is a request: any line that
// matches the host will do, and HTTPS then decides each request.
func (p *Policy) TLS(name hostname.Name) Decision { return p.host(KindHTTPS, name) }

// host decides by the host alone; the first line in file order is named.
func (p *Policy) host(kind Kind, name hostname.Name) Decision {
	ix := p.index(kind)
	if ix == nil {
		return Deny(BadPolicy)
	}
	best := none
	ix.each(name.String(), func(e *entry) {
		if e.order < best.order {
			best = e
		}
	})
	if best == none {
		return Deny(NoRule)
	}
	return Decision{Allow: true, Rule: best.Where}
}

// PathScoped reports whether a path rule applies to the host, so that requests
// to it are decided by method and path and must not be ambiguous.
func (p *Policy) PathScoped(name hostname.Name) bool {
	ix := p.index(KindHTTPS)
	if ix == nil {
		return false
	}
	scoped := false
	ix.each(name.String(), func(e *entry) { scoped = scoped || e.Path != nil })
	return scoped
}

// HTTPS decides one request. When a line that matches the host has a regex,
// one of those regexes must match and lines without one give nothing: scoping
// never widens, and the order of lines does not matter
// (TestScopingNeverWidens).
func (p *Policy) HTTPS(r Request) Decision {
	ix := p.index(KindHTTPS)
	if ix == nil {
		return Deny(BadPolicy)
	}
	if !isToken(r.Method) || !isTarget(r.Method, r.Target) {
		return Deny(Malformed)
	}
	open, scoped, allowed := none, none, none
	ambiguous, slashes := false, false
	ix.each(r.Host.String(), func(e *entry) {
		switch {
		case e.Path == nil:
			if e.order < open.order {
				open = e
			}
			return
		case scoped == none:
			ambiguous = AmbiguousTarget(r.Target)
			slashes = ambiguous && onlyEncodedSlashes(r.Target)
			scoped = e
		case e.order < scoped.order:
			scoped = e
		}
		// Invariant: where paths decide, a path has one reading, or the rule
		// spells the other (TestAmbiguousTargetsAreDeniedWherePathsDecide,
		// TestEncodedSlashesNeedARuleThatSpellsThem).
		if ambiguous && (!slashes || !e.Path.slashes) {
			return
		}
		if e.order < allowed.order && e.Path.Match(r.Method, r.Target) {
			allowed = e
		}
	})
	switch {
	case scoped == none && open == none:
		return Deny(NoRule)
	case scoped == none:
		return Decision{Allow: true, Rule: open.Where}
	case allowed != none:
		return Decision{Allow: true, Rule: allowed.Where}
	case ambiguous:
		return Decision{Reason: AmbiguousPath, Rule: scoped.Where}
	}
	return Decision{Reason: PathRule, Rule: scoped.Where}
}

// Matching returns the rules whose host matches name, in file order, whatever
// they decide: what a person who wonders about a verdict wants to see.
func (p *Policy) Matching(kind Kind, name hostname.Name) []Rule {
	ix := p.index(kind)
	if ix == nil {
		return nil
	}
	var found []*entry
	ix.each(name.String(), func(e *entry) { found = append(found, e) })
	slices.SortFunc(found, func(a, b *entry) int { return cmp.Compare(a.order, b.order) })
	rules := make([]Rule, len(found))
	for i, e := range found {
		rules[i] = e.Rule
	}
	return rules
}

// isToken implements `token` of RFC 9110, 5.6.2. Methods are case-sensitive.
func isToken(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
			continue
		}
		if strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return true
}

// isTarget takes the origin-form and the `*` of OPTIONS. Spaces, control
// characters and fragments have no place in either: after a space the rest
// would be read as something else by someone.
func isTarget(method, target string) bool {
	if target == "*" {
		return method == "OPTIONS"
	}
	if !strings.HasPrefix(target, "/") {
		return false
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}
