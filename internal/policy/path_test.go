package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestPathRulesAreAnchored(t *testing.T) {
	tests := []struct {
		regex, method, target string
		want                  bool
	}{
		{"GET /public/", "GET", "/public/x", true},
		{"GET /public/", "GET", "/secret?x=/public/", false},
		{"GET /public/", "GET", "/secret?GET /public/", false},
		{"GET /public/", "POST", "/public/x", false},
		{"GET /public/", "GETGET", "/public/x", false},
		{"GET /public/", "XGET", "/public/x", false},
		{"^GET /public$", "GET", "/public", true},
		{"^GET /public$", "GET", "/public?x", false},
		{"^GET /public$", "GET", "/public%0a", false},
		{"GET /public", "GET", "/publications", true},
		{"^/a|GET /b$", "GET", "/c", false},
		{"GET /a|GET /b$", "GET", "/b", true},
		{"GET /a|GET /b$", "GET", "/bb", false},
		{"GET /a|GET /b$", "POST", "/x?GET /b", false},
		{"(GET|HEAD) /", "HEAD", "/x", true},
		{"(GET|HEAD) /", "get", "/x", false},
		{"(?i)get /x", "GET", "/X", true},
		{`GET /v1\.0/`, "GET", "/v1.0/x", true},
		{`GET /v1\.0/`, "GET", "/v1x0/x", false},
		{`[A-Z]+ /x\?y=1$`, "DELETE", "/x?y=1", true},
		{`\QGET /a.b\E$`, "GET", "/a.b", true},
		{`\QGET /a.b\E$`, "GET", "/axb", false},
	}
	for _, tc := range tests {
		p, err := CompilePath(tc.regex)
		if err != nil {
			t.Errorf("%q: %v", tc.regex, err)
			continue
		}
		if got := p.Match(tc.method, tc.target); got != tc.want {
			t.Errorf("%q matches %s %s: %v, want %v", tc.regex, tc.method, tc.target, got, tc.want)
		}
	}
}

func TestCompilePathNamesWhatRE2Lacks(t *testing.T) {
	tests := []struct {
		regex string
		at    int
		why   string
	}{
		{"GET /(?=x)", 5, "a lookahead, `(?=`"},
		{"GET /(?!x)", 5, "a negative lookahead, `(?!`"},
		{"GET /(?<=x)", 5, "a lookbehind, `(?<=`"},
		{"GET /(?<!x)", 5, "a negative lookbehind, `(?<!`"},
		{"GET /(?>x)", 5, "an atomic group, `(?>`"},
		{`GET /(x)\1`, 8, "a backreference, `\\1`"},
		{"GET /(?P<n>x)(?P=n)", 13, "a named backreference, `(?P=`"},
		{"GET /(x)?(?(1)a|b)", 9, "a conditional group, `(?(`"},
		{"GET /(?#note)x", 5, "a comment group, `(?#`"},
		{"GET /x*+", 6, "a possessive quantifier, `*+`"},
		{"GET /x++y", 6, "a possessive quantifier, `++`"},
		{"GET /x?+", 6, "a possessive quantifier, `?+`"},
		{"GET /x{1,2}+", 6, "a possessive quantifier, `{1,2}+`"},
		{`GET /x\Z`, 6, "the end anchor \\Z"},
		{`GET /\u0041`, 5, "the escape \\u"},
		{`GET /\g<1>`, 5, "the backreference \\g"},
		{"GET /(?R)", 5, "a recursion"},
		{"GET /(*SKIP)", 5, "a control verb"},
		{"(?x)GET /", 0, "the flag x, `(?x`"},
		{"(?ia)GET /", 0, "the flag a, `(?a`"},
		{"(?L:GET) /", 0, "the flag L, `(?L`"},
		{"GET /x{,3}", 6, "a repetition without a lower bound, `{,3}`"},
		{"GET /(x", 0, "missing closing )"},
		{"GET /x)", 0, "unexpected )"},
		{"GET /x)|(?:y", 0, "unexpected )"},
		{"GET /[x", 5, "missing closing ]: `[x`"},
		{"GET /x**", 6, "invalid nested repetition operator: `**`"},
		{"*GET /", 0, "missing argument to repetition operator: `*`"},
		{`GET /\`, 5, "ends in a backslash"},
		{`GET /\Qx`, 5, "the quotation `\\Q` has no end"},
		{`GET /\y`, 5, "invalid escape sequence: `\\y`"},
		{"GET /x{1001}", 6, "invalid repeat count: `{1001}`"},
		{"GET /(a{900}b){1000}", 0, "invalid repeat count"},
		{"GET /(abcdefghijk){1000}", 0, "too large"},
		{strings.Repeat("a", maxPathSource+1), maxPathSource, "longer than"},
	}
	for _, tc := range tests {
		p, err := CompilePath(tc.regex)
		var pe *PathError
		if !errors.As(err, &pe) {
			t.Errorf("%q is %v (%v), want a PathError", tc.regex, p, err)
			continue
		}
		if !strings.Contains(pe.Why, tc.why) || tc.at != 0 && pe.At != tc.at {
			t.Errorf("%q: at %d %q, want at %d %q", tc.regex, pe.At, pe.Why, tc.at, tc.why)
		}
	}
}

func TestCompilePathTakesWhatOnlyLooksForeign(t *testing.T) {
	for _, regex := range []string{
		`GET /[(?=]`, `GET /\(?=`, `GET /x*?`, `GET /x+?y`, `GET /[+*]+`, `GET /[]+]+`, `GET /[^]*]+`,
		`GET /\Q(?=x)*+\E`, `GET /(?P<name>x)`, `GET /(?<name>x)`, `GET /(?i:x)`, `GET /x{2}?`, `GET /x{2,}`, `GET /[{,3}]`, `GET /x{,}`, `(?im-s:GET) /`, `GET /\*+`, `GET /{a}+`,
		`GET /[[:alpha:]]+`, `GET /\d\w\s\b\pL`,
	} {
		if _, err := CompilePath(regex); err != nil {
			t.Errorf("%q: %v", regex, err)
		}
	}
}

func FuzzCompilePath(f *testing.F) {
	for _, s := range []string{"GET /(?=x)", "GET /x*+", `GET /[]\Q`, `a)(?:b`, "(?i)get /", `\Q(`, "[[:alpha:]]", "x{1,2}+"} {
		f.Add(s, "/x")
	}
	f.Fuzz(func(t *testing.T, source, target string) {
		p, err := CompilePath(source)
		if err != nil {
			return
		}
		again, err := CompilePath(p.String())
		if err != nil {
			t.Fatalf("%q compiles once: %v", source, err)
		}
		if p.Match("GET", target) != again.Match("GET", target) {
			t.Fatalf("%q decides %q in two ways", source, target)
		}
		// What is before a match can not matter: a match starts at the start.
		if loc := p.re.FindStringIndex("GET " + target); loc != nil && loc[0] != 0 {
			t.Fatalf("%q matches %q from %d", source, target, loc[0])
		}
	})
}
