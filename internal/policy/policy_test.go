package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

// parseRules reads lines of a list; Where is "l1", "l2"…
func parseRules(t testing.TB, kind Kind, lines ...string) []Rule {
	t.Helper()
	rules := make([]Rule, len(lines))
	for i, line := range lines {
		host, regex, scoped := strings.Cut(line, " ")
		parse := ParseGlob
		if kind == KindDNS {
			parse = ParseSuffix
		}
		p, err := parse(host)
		if err != nil {
			t.Fatal(err)
		}
		rules[i] = Rule{Host: p, Where: fmt.Sprintf("l%d", i+1)}
		if scoped {
			if rules[i].Path, err = CompilePath(regex); err != nil {
				t.Fatal(err)
			}
		}
	}
	return rules
}

func https(t testing.TB, lines ...string) *Policy {
	t.Helper()
	return New(Rules{KindHTTPS: parseRules(t, KindHTTPS, lines...)})
}

func TestNothingAllowsWithoutAList(t *testing.T) {
	name := mustName(t, "github.com")
	request := Request{Host: name, Method: "GET", Target: "/"}
	for what, p := range map[string]*Policy{"nil policy": nil, "zero policy": {}, "nil rules": New(nil), "no kinds": New(Rules{})} {
		for kind, d := range map[Kind]Decision{KindDNS: p.DNS(name), "tls": p.TLS(name), KindHTTPS: p.HTTPS(request), KindSSH: p.SSH(name)} {
			if d != Deny(BadPolicy) {
				t.Errorf("%s: %s is %+v", what, kind, d)
			}
		}
		if _, ok := p.Loaded(KindDNS); ok || p.PathScoped(name) || p.Matching(KindHTTPS, name) != nil {
			t.Errorf("%s looks loaded", what)
		}
	}
	empty := New(Rules{KindDNS: nil, KindHTTPS: {}, KindSSH: nil})
	for kind, d := range map[Kind]Decision{KindDNS: empty.DNS(name), "tls": empty.TLS(name), KindHTTPS: empty.HTTPS(request), KindSSH: empty.SSH(name)} {
		if d != Deny(NoRule) {
			t.Errorf("empty lists: %s is %+v", kind, d)
		}
	}
	if n, ok := empty.Loaded(KindSSH); n != 0 || !ok {
		t.Errorf("an empty list is loaded: %d, %v", n, ok)
	}
	one := New(Rules{KindHTTPS: parseRules(t, KindHTTPS, "github.com")})
	if d := one.DNS(name); d != Deny(BadPolicy) {
		t.Errorf("a list of another kind decides DNS: %+v", d)
	}
}

func TestTheZeroNameIsDenied(t *testing.T) {
	p := New(Rules{KindDNS: parseRules(t, KindDNS, "*"), KindHTTPS: parseRules(t, KindHTTPS, "**"), KindSSH: parseRules(t, KindSSH, "**")})
	var none hostname.Name
	for _, d := range []Decision{p.DNS(none), p.TLS(none), p.SSH(none), p.HTTPS(Request{Method: "GET", Target: "/"})} {
		if d.Allow {
			t.Errorf("no name is allowed: %+v", d)
		}
	}
}

func TestHTTPS(t *testing.T) {
	allow := func(rule string) Decision { return Decision{Allow: true, Rule: rule} }
	deny := func(reason Reason, rule string) Decision { return Decision{Reason: reason, Rule: rule} }
	tests := map[string]struct {
		lines                []string
		host, method, target string
		want                 Decision
	}{
		"a host line allows every request":               {[]string{"ok.com"}, "ok.com", "DELETE", "/x?y", allow("l1")},
		"another host is denied":                         {[]string{"ok.com"}, "no.com", "GET", "/", deny(NoRule, "")},
		"the first line in file order is named":          {[]string{"**.com", "*.ok.com", "a.ok.com"}, "a.ok.com", "GET", "/", allow("l1")},
		"an exact line first is named":                   {[]string{"a.ok.com", "*.ok.com"}, "a.ok.com", "GET", "/", allow("l1")},
		"a path rule allows what it matches":             {[]string{"ok.com GET /public/"}, "ok.com", "GET", "/public/x", allow("l1")},
		"a path rule denies the rest":                    {[]string{"ok.com GET /public/"}, "ok.com", "GET", "/secret", deny(PathRule, "l1")},
		"a path rule scopes a host line after it":        {[]string{"ok.com GET /public/", "ok.com"}, "ok.com", "GET", "/secret", deny(PathRule, "l1")},
		"a path rule scopes a host line before it":       {[]string{"ok.com", "ok.com GET /public/"}, "ok.com", "GET", "/secret", deny(PathRule, "l2")},
		"a path rule scopes a broader glob":              {[]string{"*.ok.com", "a.ok.com GET /public/"}, "a.ok.com", "GET", "/secret", deny(PathRule, "l2")},
		"a path rule on a glob scopes an exact line":     {[]string{"a.ok.com", "*.ok.com GET /public/"}, "a.ok.com", "GET", "/secret", deny(PathRule, "l2")},
		"other hosts of a broad glob stay open":          {[]string{"*.ok.com", "a.ok.com GET /public/"}, "b.ok.com", "GET", "/secret", allow("l1")},
		"one of several regexes is enough":               {[]string{"ok.com GET /a/", "ok.com GET /b/"}, "ok.com", "GET", "/b/x", allow("l2")},
		"the first matching regex is named":              {[]string{"ok.com GET /b", "*.com GET /", "ok.com GET /a/"}, "ok.com", "GET", "/a/x", allow("l2")},
		"the first scoping line is named in a denial":    {[]string{"ok.com", "*.com POST /", "ok.com GET /a/"}, "ok.com", "GET", "/b", deny(PathRule, "l2")},
		"a method is case-sensitive":                     {[]string{"ok.com GET /"}, "ok.com", "get", "/", deny(PathRule, "l1")},
		"HEAD is not GET":                                {[]string{"ok.com GET /"}, "ok.com", "HEAD", "/", deny(PathRule, "l1")},
		"an ambiguous path is denied although it fits":   {[]string{"ok.com GET /public/"}, "ok.com", "GET", "/public/../secret", deny(AmbiguousPath, "l1")},
		"an ambiguous path passes on an open host":       {[]string{"ok.com"}, "ok.com", "GET", "/a%2Fb//c/../d;x=1", allow("l1")},
		"an ambiguous query passes where paths decide":   {[]string{"ok.com GET /public/"}, "ok.com", "GET", "/public/?u=https%3A%2F%2Fx/../y", allow("l1")},
		"the asterisk form is for OPTIONS":               {[]string{"ok.com"}, "ok.com", "OPTIONS", "*", allow("l1")},
		"the asterisk form is decided by path rules":     {[]string{"ok.com GET /"}, "ok.com", "OPTIONS", "*", deny(PathRule, "l1")},
		"the asterisk form is malformed for GET":         {[]string{"ok.com"}, "ok.com", "GET", "*", deny(Malformed, "")},
		"an absolute target is malformed":                {[]string{"ok.com"}, "ok.com", "GET", "https://ok.com/", deny(Malformed, "")},
		"an authority target is malformed":               {[]string{"ok.com"}, "ok.com", "CONNECT", "ok.com:443", deny(Malformed, "")},
		"no target is malformed":                         {[]string{"ok.com"}, "ok.com", "GET", "", deny(Malformed, "")},
		"a space in the target is malformed":             {[]string{"ok.com"}, "ok.com", "GET", "/x HTTP/1.1", deny(Malformed, "")},
		"a line break in the target is malformed":        {[]string{"ok.com"}, "ok.com", "GET", "/x\r\nHost: no.com", deny(Malformed, "")},
		"a fragment is malformed":                        {[]string{"ok.com"}, "ok.com", "GET", "/secret#/public/", deny(Malformed, "")},
		"no method is malformed":                         {[]string{"ok.com"}, "ok.com", "", "/", deny(Malformed, "")},
		"a method with a space is malformed":             {[]string{"ok.com GET /"}, "ok.com", "GET /public", "/", deny(Malformed, "")},
		"a method with a tab is malformed":               {[]string{"ok.com"}, "ok.com", "GET\t", "/", deny(Malformed, "")},
		"a method of token characters is a method":       {[]string{"ok.com"}, "ok.com", "M-SEARCH", "/", allow("l1")},
		"raw UTF-8 in the target passes on an open host": {[]string{"ok.com"}, "ok.com", "GET", "/ü", allow("l1")},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := https(t, tc.lines...)
			host := mustName(t, tc.host)
			got := p.HTTPS(Request{Host: host, Method: tc.method, Target: tc.target})
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("decision (-want +got):\n%s", diff)
			}
			if tls := p.TLS(host); tls.Allow != (tc.want.Reason != NoRule) {
				t.Errorf("the ClientHello is %+v", tls)
			}
		})
	}
}

func TestAmbiguousTargetsAreDeniedWherePathsDecide(t *testing.T) {
	p := https(t, "*.ok.com", "a.ok.com GET /", "a.ok.com POST /x$")
	for _, target := range []string{"/public/../secret", "/%2e%2e/", "/a%2fb", "/a;b", "//x", `/a\b`, "/%252e", "/%c0%ae"} {
		if got := p.HTTPS(Request{mustName(t, "a.ok.com"), "GET", target}); got != (Decision{Reason: AmbiguousPath, Rule: "l2"}) {
			t.Errorf("%q on a scoped host: %+v", target, got)
		}
		if got := p.HTTPS(Request{mustName(t, "b.ok.com"), "GET", target}); !got.Allow {
			t.Errorf("%q on an open host: %+v", target, got)
		}
	}
	if !p.PathScoped(mustName(t, "a.ok.com")) || p.PathScoped(mustName(t, "b.ok.com")) || p.PathScoped(mustName(t, "no.com")) {
		t.Error("PathScoped is wrong about the hosts")
	}
}

func TestEncodedSlashesNeedARuleThatSpellsThem(t *testing.T) {
	p := https(t, "r.ok.com GET /", "r.ok.com ^GET /@[a-z]+%2[fF]", "r.ok.com ^GET /exact%2fx$", "s.ok.com GET /")
	for target, want := range map[string]Decision{
		"/@a%2fb":        {Allow: true, Rule: "l2"},
		"/@a%2Fb%2Fc":    {Allow: true, Rule: "l2"},
		"/exact%2fx":     {Allow: true, Rule: "l3"},
		"/@a%2fb?u=../x": {Allow: true, Rule: "l2"},
		"/plain":         {Allow: true, Rule: "l1"},
		"/other%2fb":     {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%2f..%2fb":   {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%2f%2e%2e":   {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%2f../b":     {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%2f%2fb":     {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%2f/b":       {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%2fb%5cc":    {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%2fb;c":      {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%2f%252e":    {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%2f%c0%ae":   {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%252fb":      {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%2fb%2":      {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%%2f2fb":     {Reason: AmbiguousPath, Rule: "l1"},
		"/@a%2%2fb":      {Reason: AmbiguousPath, Rule: "l1"},
	} {
		if got := p.HTTPS(Request{mustName(t, "r.ok.com"), "GET", target}); got != want {
			t.Errorf("%q: %+v, want %+v", target, got, want)
		}
		want := want
		if strings.Contains(target, "%") {
			want = Decision{Reason: AmbiguousPath, Rule: "l4"}
		} else {
			want.Rule = "l4"
		}
		if got := p.HTTPS(Request{mustName(t, "s.ok.com"), "GET", target}); got != want {
			t.Errorf("%q without a rule that spells it: %+v, want %+v", target, got, want)
		}
	}
}

func TestHostOnlyKinds(t *testing.T) {
	p := New(Rules{
		KindDNS: parseRules(t, KindDNS, "ok.com", "api.ok.com", "x.example"),
		KindSSH: parseRules(t, KindSSH, "*.ok.com", "git.example"),
	})
	for host, want := range map[string]Decision{
		"ok.com": {Allow: true, Rule: "l1"}, "a.b.ok.com": {Allow: true, Rule: "l1"}, "api.ok.com": {Allow: true, Rule: "l1"},
		"evilok.com": {Reason: NoRule}, "ok.com.evil.test": {Reason: NoRule}, "example.com": {Reason: NoRule},
	} {
		if got := p.DNS(mustName(t, host)); got != want {
			t.Errorf("DNS %q: %+v, want %+v", host, got, want)
		}
	}
	for host, want := range map[string]Decision{
		"git.example": {Allow: true, Rule: "l2"}, "a.ok.com": {Allow: true, Rule: "l1"}, "ok.com": {Reason: NoRule}, "a.b.ok.com": {Reason: NoRule},
	} {
		if got := p.SSH(mustName(t, host)); got != want {
			t.Errorf("SSH %q: %+v, want %+v", host, got, want)
		}
	}
	if n, ok := p.Loaded(KindDNS); n != 3 || !ok {
		t.Errorf("loaded %d DNS rules (%v)", n, ok)
	}
}

func TestMatching(t *testing.T) {
	p := https(t, "**", "b.ok.com", "*.ok.com GET /", "a.ok.com")
	var got []string
	for _, r := range p.Matching(KindHTTPS, mustName(t, "a.ok.com")) {
		got = append(got, r.Where+" "+r.String())
	}
	if diff := cmp.Diff([]string{"l1 **", "l3 *.ok.com GET /", "l4 a.ok.com"}, got); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

// oracle decides by the specification's words, one line after the other.
func oracle(rules []Rule, r Request) Decision {
	var open, scoped, allowed *Rule
	first := func(p **Rule, r *Rule) {
		if *p == nil {
			*p = r
		}
	}
	for i := range rules {
		rule := &rules[i]
		if !globOracle(rule.Host.String()).MatchString(r.Host.String()) {
			continue
		}
		switch {
		case rule.Path == nil:
			first(&open, rule)
		default:
			first(&scoped, rule)
			// Of the targets here `/a%2fb` alone has nothing but encoded slashes.
			readable := !AmbiguousTarget(r.Target) || r.Target == "/a%2fb" && strings.Contains(rule.Path.String(), "%2f")
			if readable && rule.Path.Match(r.Method, r.Target) {
				first(&allowed, rule)
			}
		}
	}
	switch {
	case open == nil && scoped == nil:
		return Deny(NoRule)
	case scoped == nil:
		return Decision{Allow: true, Rule: open.Where}
	case allowed != nil:
		return Decision{Allow: true, Rule: allowed.Where}
	case AmbiguousTarget(r.Target):
		return Decision{Reason: AmbiguousPath, Rule: scoped.Where}
	}
	return Decision{Reason: PathRule, Rule: scoped.Where}
}

var (
	oracleHosts   = []string{"ok.com", "a.ok.com", "b.ok.com", "a.b.ok.com", "evilok.com", "a.example.org", "ok.example.org", "a.b.c.d.example.org"}
	oracleGlobs   = []string{"ok.com", "a.ok.com", "*.ok.com", "**.ok.com", "a.*.com", "**", "*.b.ok.com", "**.example.org", "a*.example.org", "a.**.org", "evilok.com"}
	oracleRegexes = []string{"", "", "", " GET /", " GET /a$", " POST /", " [A-Z]+ /a", " GET /b|POST /c", " GET /a%2f"}
	oracleTargets = []string{"/", "/a", "/b?x", "/c", "/../a", "/a%2fb", "/a%2f..%2fb"}
)

func randomLines(rng *rand.Rand) []string {
	lines := make([]string, rng.IntN(8))
	for i := range lines {
		lines[i] = oracleGlobs[rng.IntN(len(oracleGlobs))] + oracleRegexes[rng.IntN(len(oracleRegexes))]
	}
	return lines
}

func randomRequest(t testing.TB, rng *rand.Rand) Request {
	return Request{
		Host:   mustName(t, oracleHosts[rng.IntN(len(oracleHosts))]),
		Method: []string{"GET", "POST", "HEAD"}[rng.IntN(3)],
		Target: oracleTargets[rng.IntN(len(oracleTargets))],
	}
}

func FuzzDecision(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		lines := randomLines(rng)
		rules := parseRules(t, KindHTTPS, lines...)
		p := New(Rules{KindHTTPS: rules})
		for range 10 {
			r := randomRequest(t, rng)
			want, got := oracle(rules, r), p.HTTPS(r)
			if got != want {
				t.Fatalf("%q\n%s %s%s: %+v, want %+v", lines, r.Method, r.Host, r.Target, got, want)
			}
			if got.Allow && !p.TLS(r.Host).Allow {
				t.Fatalf("%q: %s is allowed and its handshake is not", lines, r.Host)
			}
		}
	})
}

// Invariant: adding a path rule never allows what was denied for a host that
// had a line, unless the new rule itself matches; and order changes no verdict.
func TestScopingNeverWidens(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 2000 {
		lines := randomLines(rng)
		r := randomRequest(t, rng)
		before := https(t, lines...).HTTPS(r)
		shuffled := slices.Clone(lines)
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if after := https(t, shuffled...).HTTPS(r); after.Allow != before.Allow || after.Reason != before.Reason {
			t.Fatalf("%q decides %+v, in another order %q %+v", lines, before, shuffled, after)
		}
		extra := oracleGlobs[rng.IntN(len(oracleGlobs))] + " PUT /nothing$"
		if after := https(t, append(shuffled, extra)...).HTTPS(r); after.Allow && !before.Allow {
			t.Fatalf("%q decides %+v, and with %q %+v", lines, before, extra, after)
		}
	}
}
