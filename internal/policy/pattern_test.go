package policy

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

func mustName(t testing.TB, s string) hostname.Name {
	t.Helper()
	n, err := hostname.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGlobMatch(t *testing.T) {
	tests := []struct {
		glob  string
		match []string
		not   []string
	}{
		{"api.github.com", []string{"api.github.com"}, []string{"github.com", "x.api.github.com", "api.github.com.evil.test", "apixgithub.com"}},
		{"API.GitHub.COM.", []string{"api.github.com"}, nil},
		{"*.ok.com", []string{"a.ok.com", "xn--a.ok.com"}, []string{"ok.com", "a.b.ok.com", "evilok.com", "a.ok.com.evil.test"}},
		{"**.ok.com", []string{"a.ok.com", "a.b.ok.com", "a.b.c.ok.com"}, []string{"ok.com", "evilok.com", "a.evilok.com"}},
		{"*.*.ok.com", []string{"a.b.ok.com"}, []string{"a.ok.com", "a.b.c.ok.com"}},
		{"a.*.ok.com", []string{"a.b.ok.com"}, []string{"a.ok.com", "a.b.c.ok.com", "b.a.ok.com"}},
		{"a.**.ok.com", []string{"a.b.ok.com", "a.b.c.ok.com"}, []string{"a.ok.com", "xa.b.ok.com"}},
		{"api-*.ok.com", []string{"api-eu.ok.com", "api--1.ok.com"}, []string{"api-a.b.ok.com", "api.ok.com"}},
		{"*-api.ok.com", []string{"eu-api.ok.com"}, []string{"a.eu-api.ok.com", "eu-apix.ok.com"}},
		{"a*b*c.ok.com", []string{"abc.ok.com", "axbxc.ok.com", "abbc.ok.com", "abcbc.ok.com"}, []string{"acb.ok.com", "ab.c.ok.com"}},
		{"**a*b.ok.com", []string{"ab.ok.com", "x.ab.ok.com", "x.ay.axb.ok.com", "a.a.ab.ok.com"}, []string{"a.b.ok.com", "b.ok.com"}},
		{"**.a.**.ok.com", []string{"x.a.y.ok.com", "a.a.a.ok.com", "x.a.a.ok.com"}, []string{"a.ok.com", "x.a.ok.com", "a.a.ok.com"}},
		{"bedrock-runtime.*.amazonaws.com", []string{"bedrock-runtime.us-east-1.amazonaws.com"}, []string{"bedrock-runtime.amazonaws.com", "bedrock-runtime.a.b.amazonaws.com"}},
		{"*.co.uk", []string{"ok.co.uk"}, []string{"co.uk.evil.test", "a.ok.co.uk"}},
		{"**", []string{"a.b", "a.b.c.d"}, nil},
		{"*.bücher.example", []string{"a.xn--bcher-kva.example"}, []string{"xn--bcher-kva.example"}},
	}
	for _, tc := range tests {
		p, err := ParseGlob(tc.glob)
		if err != nil {
			t.Errorf("%q: %v", tc.glob, err)
			continue
		}
		for _, host := range tc.match {
			if !p.Match(mustName(t, host)) {
				t.Errorf("%q does not match %q", tc.glob, host)
			}
		}
		for _, host := range tc.not {
			if p.Match(mustName(t, host)) {
				t.Errorf("%q matches %q", tc.glob, host)
			}
		}
		if again, err := ParseGlob(p.String()); err != nil || again != p {
			t.Errorf("%q in normal form is %q, which is read as %q (%v)", tc.glob, p, again, err)
		}
	}
}

func TestSuffixMatch(t *testing.T) {
	p, err := ParseSuffix("GitHub.com.")
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"github.com": true, "api.github.com": true, "a.b.github.com": true,
		"evilgithub.com": false, "github.com.evil.test": false, "github.co": false, "hub.com": false,
	} {
		if p.Match(mustName(t, host)) != want {
			t.Errorf("%q matches %q is %v", p, host, !want)
		}
	}
	if p.Match(hostname.Name{}) {
		t.Error("a suffix matches no name")
	}
	all, err := ParseSuffix("*")
	if err != nil || !all.Match(mustName(t, "a.b")) || all.Match(hostname.Name{}) {
		t.Errorf("a lone * is %q (%v)", all, err)
	}
	if (Pattern{}).Match(mustName(t, "a.b")) {
		t.Error("the zero pattern matches")
	}
}

func TestPatternErrors(t *testing.T) {
	tests := []struct {
		kind      Kind
		in        string
		why, hint string // parts; hint "-" is none
	}{
		{KindHTTPS, "*ok.com", "anybody can register", `"ok.com" for the host and "*.ok.com"`},
		{KindHTTPS, "**ok.com", "anybody can register", `"**.ok.com"`},
		{KindHTTPS, "*ok.co.uk", "anybody can register", `"ok.co.uk" for the host`},
		{KindHTTPS, "ok*.com", "anybody can register", "write the names out"},
		{KindHTTPS, "a.ok*.com", "anybody can register", "write the names out"},
		{KindHTTPS, "a.ok.c*m", "ends in a wildcard", "top-level domain"},
		{KindHTTPS, "github.*", "ends in a wildcard", "top-level domain"},
		{KindHTTPS, "github.**", "ends in a wildcard", "top-level domain"},
		{KindHTTPS, "*.*", "ends in a wildcard", "top-level domain"},
		{KindHTTPS, "**x", "anybody can register", "write"},
		{KindHTTPS, "*", "single label", `"**" for every host`},
		{KindHTTPS, "a.***.com", "more than two stars", "crosses dots"},
		{KindHTTPS, "*a*b*c*d*e*f*g*h*i.ok.com", "more than 8 wildcards", "several lines"},
		{KindHTTPS, "https://github.com/x", "colon", `write "github.com"`},
		{KindHTTPS, "https://*.github.com/x", "colon", `write "*.github.com"`},
		{KindHTTPS, "github.com:443", "colon", `write "github.com"`},
		{KindHTTPS, "git@github.com", "'@'", `write "github.com"`},
		{KindHTTPS, "git@github.com:x/y.git", "'@'", `write "github.com"`},
		{KindHTTPS, "github.com/x", "'/'", `write "github.com"`},
		{KindHTTPS, ".github.com", "empty label", `write "github.com"`},
		{KindHTTPS, "[::1]:443", "IP address", "-"},
		{KindHTTPS, "127.0.0.1", "IP address", "-"},
		{KindHTTPS, "*.0.0.1", "IP address", "-"},
		{KindHTTPS, "localhost", "single label", "-"},
		{KindHTTPS, "a_b.*.example.com", "underscore", "-"},
		{KindHTTPS, "*_b.example.com", "underscore", "-"},
		{KindHTTPS, "-*.example.com", "hyphen", "-"},
		{KindHTTPS, "a?.example.com", "'?'", "-"},
		{KindHTTPS, "[ab].example.com", "IP address", "-"},
		{KindHTTPS, "*ü.example.com", "not ASCII", "-"},
		{KindHTTPS, "*.a。example.com", "dot that is not ASCII", `"."`},
		{KindDNS, "*.github.com", "always covers what is below", `write "github.com"`},
		{KindDNS, "**.github.com", "always covers what is below", `write "github.com"`},
		{KindDNS, "a.*.github.com", "always covers what is below", "ends all the names"},
		{KindDNS, "**", "no DNS rule", `lone "*"`},
		{KindDNS, ".github.com", "empty label", `write "github.com", which covers`},
		{KindDNS, "com", "single label", "-"},
		{KindDNS, "https://github.com", "colon", `write "github.com"`},
		{KindDNS, "1.0.0.127.in-addr.arpa:53", "colon", `write "1.0.0.127.in-addr.arpa"`},
	}
	for _, tc := range tests {
		parse := ParseGlob
		if tc.kind == KindDNS {
			parse = ParseSuffix
		}
		p, err := parse(tc.in)
		var pe *PatternError
		if !errors.As(err, &pe) {
			t.Errorf("%s %q is %q (%v), want a PatternError", tc.kind, tc.in, p, err)
			continue
		}
		if !strings.Contains(pe.Why, tc.why) {
			t.Errorf("%s %q: refused because %q, want %q", tc.kind, tc.in, pe.Why, tc.why)
		}
		if tc.hint == "-" && pe.Hint != "" || tc.hint != "-" && !strings.Contains(pe.Hint, tc.hint) {
			t.Errorf("%s %q: hint %q, want %q", tc.kind, tc.in, pe.Hint, tc.hint)
		}
		if p != (Pattern{}) {
			t.Errorf("%s %q: refused and yet %q", tc.kind, tc.in, p)
		}
	}
}

// globOracle is the specification's wording as a regexp.
func globOracle(glob string) *regexp.Regexp {
	s := regexp.QuoteMeta(glob)
	s = strings.ReplaceAll(s, `\*\*`, `.*`)
	s = strings.ReplaceAll(s, `\*`, `[^.]*`)
	return regexp.MustCompile(`\A(?:` + s + `)\z`)
}

func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{
		{"*.ok.com", "a.ok.com"}, {"**a*b.ok.com", "x.ay.axb.ok.com"}, {"a*b*c.ok.com", "abcbc.ok.com"},
		{"**.a.**.ok.com", "x.a.a.ok.com"}, {"**a**b*c.ok.com", "a.b.bc.ok.com"}, {"*.bücher.example", "a.b"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, glob, host string) {
		p, err := ParseGlob(glob)
		if err != nil {
			return
		}
		if again, err := ParseGlob(p.String()); err != nil || again != p {
			t.Fatalf("%q is %q, and that %q (%v)", glob, p, again, err)
		}
		name, err := hostname.Parse(host)
		if err != nil {
			return
		}
		if got, want := p.Match(name), globOracle(p.String()).MatchString(name.String()); got != want {
			t.Fatalf("%q matches %q: %v, want %v", p, name, got, want)
		}
	})
}
