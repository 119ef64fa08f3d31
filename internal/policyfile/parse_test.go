package policyfile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

func lines(rules []policy.Rule) []string {
	var out []string
	for _, r := range rules {
		out = append(out, r.Where+" "+r.String())
	}
	return out
}

func problemLines(ps Problems) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}

func TestParse(t *testing.T) {
	tests := map[string]struct {
		kind policy.Kind
		text string
		want []string // "WHERE RULE"
	}{
		"nothing":                           {policy.KindHTTPS, "", nil},
		"blank lines and comments":          {policy.KindHTTPS, "\n  \n\t\n# x\n  # y\n#\n", nil},
		"one host a line":                   {policy.KindHTTPS, "a.example\nB.Example.\n", []string{"f:1 a.example", "f:2 b.example"}},
		"no line end at the end":            {policy.KindSSH, "a.example", []string{"f:1 a.example"}},
		"white space around a line":         {policy.KindDNS, " \ta.example\t \n", []string{"f:1 a.example"}},
		"Windows line ends":                 {policy.KindHTTPS, "a.example\r\n\r\n# x\r\nb.example GET /$\r\n", []string{"f:1 a.example", "f:4 b.example GET /$"}},
		"a byte order mark":                 {policy.KindHTTPS, "\ufeffa.example\n", []string{"f:1 a.example"}},
		"a byte order mark, then nothing":   {policy.KindHTTPS, "\ufeff", nil},
		"a comment after a host, DNS":       {policy.KindDNS, "a.example # note\n", []string{"f:1 a.example"}},
		"a comment after a host, SSH":       {policy.KindSSH, "a.example\t#note\n", []string{"f:1 a.example"}},
		"a comment after a host, HTTPS":     {policy.KindHTTPS, "a.example # note\n", []string{"f:1 a.example"}},
		"a comment that looks like a regex": {policy.KindHTTPS, "a.example #GET /x$\n", []string{"f:1 a.example"}},
		"a regex is the rest of the line":   {policy.KindHTTPS, "a.example \t ^GET /x$ \t\n", []string{"f:1 a.example ^GET /x$"}},
		"a number sign in a regex":          {policy.KindHTTPS, "a.example GET /[^#]*$\n", []string{"f:1 a.example GET /[^#]*$"}},
		"text of any script in a comment":   {policy.KindDNS, "# für 日本\na.example # é\u00a0x\n", []string{"f:2 a.example"}},
		"an international name":             {policy.KindDNS, "bücher.example\n", []string{"f:1 xn--bcher-kva.example"}},
		"a suffix":                          {policy.KindDNS, "github.com\n", []string{"f:1 github.com"}},
		"globs for SSH":                     {policy.KindSSH, "*.git.example\n", []string{"f:1 *.git.example"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			rules, problems := Parse(tc.kind, "f", []byte(tc.text))
			if len(problems) > 0 {
				t.Errorf("problems:\n%v", problems)
			}
			if diff := cmp.Diff(tc.want, lines(rules)); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	long := strings.Repeat("a", MaxLine+1)
	tests := map[string]struct {
		kind policy.Kind
		text string
		want []string
	}{
		"every error with its place": {policy.KindHTTPS, "ok.example\nlocalhost\n  a.example GET /(?!x)\nb.example [\n", []string{
			`f:2:1: "localhost" is not a host: it has a single label, and only full names such as host.example.com count`,
			"f:3:18: the regex is not valid: it uses a negative lookahead, `(?!`, which RE2 lacks; write a line for each thing you do allow: rules only ever allow",
			"f:4:11: the regex is not valid: missing closing ]: `[`",
		}},
		"a URL": {policy.KindHTTPS, "https://GitHub.com/x\n", []string{
			`f:1:1: "https://GitHub.com/x" is not a host: it has a colon, and neither a port nor an IPv6 address is part of a name; write "github.com"`}},
		"a port": {policy.KindSSH, "GitHub.com:22\n", []string{
			`f:1:1: "GitHub.com:22" is not a host: it has a colon, and neither a port nor an IPv6 address is part of a name; write "github.com"`}},
		"a bare suffix": {policy.KindHTTPS, "\n*ok.com\n", []string{
			`f:2:1: "*ok.com" is not a rule: anybody can register a name that this matches; write "ok.com" for the host and "*.ok.com" or "**.ok.com" for what is below it`}},
		"a wildcard in a DNS list": {policy.KindDNS, "*.github.com\n", []string{
			`f:1:1: "*.github.com" is not a rule: a DNS rule has no wildcard, it always covers what is below it; write "github.com"`}},
		"two hosts on a DNS line": {policy.KindDNS, "a.example b.example # x\n", []string{
			`f:1:11: "b.example # x" follows the host, and a line of this list is one host; write one host a line, and " #" before a comment`}},
		"a regex in the SSH list": {policy.KindSSH, "a.example GET /\n", []string{
			`f:1:11: "GET /" follows the host, and a line of this list is one host; write one host a line, and " #" before a comment`}},
		"a comment without white space": {policy.KindHTTPS, "a.example#note\n", []string{
			`f:1:1: "a.example#note" is not a host: it has the character '#'; put a space before the "#" of a comment`}},
		"a comment after a regex": {policy.KindHTTPS, "a.example ^GET /x$ # note\n", []string{
			`f:1:20: a comment cannot follow a regex, which runs to the end of the line; put the comment on a line of its own`}},
		"a comment after a regex, with a tab": {policy.KindHTTPS, "a.example ^GET /x$\t#note\n", []string{
			`f:1:20: a comment cannot follow a regex, which runs to the end of the line; put the comment on a line of its own`}},
		"a regex without a method": {policy.KindHTTPS, "a.example /public/\n", []string{
			`f:1:11: no request can match "/public/": a request begins with its method and one space; write "GET /public/", or "[A-Z]+ " for any method`}},
		"a regex without a method, anchored": {policy.KindHTTPS, "a.example ^/public/\n", []string{
			`f:1:11: no request can match "/public/": a request begins with its method and one space; write "GET /public/", or "[A-Z]+ " for any method`}},
		"a regex with a dot and no method": {policy.KindHTTPS, `a.example /v1\.0/`, []string{
			`f:1:11: no request can match "/v1.0/": a request begins with its method and one space; write "GET /v1\.0/", or "[A-Z]+ " for any method`}},
		"an alternative without a method": {policy.KindHTTPS, "a.example ^GET /a/|/b$\n", []string{
			`f:1:11: no request can match "/b": a request begins with its method and one space; write "GET /b", or "[A-Z]+ " for any method`}},
		"no space after the method": {policy.KindHTTPS, "a.example GET/x/\n", []string{
			`f:1:11: no request can match "GET/x/": a request begins with its method and one space; write "GET /x/", or "[A-Z]+ " for any method`}},
		"a URL instead of a path": {policy.KindHTTPS, "a.example (GET|HEAD) https://a\\.example/x/\n", []string{
			`f:1:11: no request can match "GET https://a.example/x/": after the method comes a path, which begins with "/"; write "GET /x/"`}},
		"a path without its slash": {policy.KindHTTPS, "a.example GET public/\n", []string{
			`f:1:11: no request can match "GET public/": after the method comes a path, which begins with "/"; write "GET /public/"`}},
		"UTF-16, little end first": {policy.KindDNS, "\xff\xfea\x00.\x00", []string{`f:1:1: the list is UTF-16; save it as UTF-8`}},
		"UTF-16, big end first":    {policy.KindDNS, "\xfe\xff\x00a", []string{`f:1:1: the list is UTF-16; save it as UTF-8`}},
		"a NUL byte":               {policy.KindDNS, "a.example\nb.e\x00xample\n", []string{`f:2:4: the list has a NUL byte; save it as UTF-8 text`}},
		"bytes that are not UTF-8": {policy.KindDNS, "# caf\xe9\n", []string{`f:1:6: the line is not valid UTF-8; retype the line with plain characters`}},
		"a lone carriage return":   {policy.KindDNS, "a.example\rb.example\n", []string{`f:1:10: the line has the control character U+000D; retype the line with plain characters`}},
		"an escape in a comment":   {policy.KindDNS, "# \x1b[2J\n", []string{`f:1:3: the line has the control character U+001B; retype the line with plain characters`}},
		"text that runs backwards": {policy.KindDNS, "a.example # \u202eelpmaxe\n", []string{`f:1:13: the line has the character U+202E, which changes the order of text on the screen; retype the line with plain characters`}},
		"a no-break space":         {policy.KindDNS, "a.example\u00a0\n", []string{`f:1:10: the line has the invisible character U+00A0; retype the line with plain characters`}},
		"a zero-width space":       {policy.KindHTTPS, "a.\u200bexample\n", []string{`f:1:3: the line has the invisible character U+200B; retype the line with plain characters`}},
		"a second byte order mark": {policy.KindDNS, "a.example\n\ufeffb.example\n", []string{`f:2:1: the line has the invisible character U+FEFF; retype the line with plain characters`}},
		"a line too long":          {policy.KindDNS, "\n" + long, []string{`f:2:1: the line is longer than 4096 bytes; write several lines`}},
		"a list too large":         {policy.KindDNS, strings.Repeat("\n", MaxBytes+1), []string{`f: the list is larger than 8 MiB; use globs instead of long enumerations`}},
		"columns count characters": {policy.KindHTTPS, "bücher.example ^GET /é(?=x)\n", []string{
			"f:1:23: the regex is not valid: it uses a lookahead, `(?=`, which RE2 lacks; match what follows as a part of the regex"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			rules, problems := Parse(tc.kind, "f", []byte(tc.text))
			if diff := cmp.Diff(tc.want, problemLines(problems.Errors())); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
			if rules != nil {
				t.Errorf("a list with errors gives the rules %q", lines(rules))
			}
			if problems.Err() == nil {
				t.Error("Err is nil")
			}
		})
	}
}

func TestOneBadLineRefusesTheWholeFile(t *testing.T) {
	rules, problems := Parse(policy.KindHTTPS, "f", []byte("good.example\n*bad.com\nfine.example\n"))
	if rules != nil || len(problems.Errors()) != 1 {
		t.Errorf("rules %q, problems %v", lines(rules), problems)
	}
}

func TestTooManyRegexes(t *testing.T) {
	var b strings.Builder
	for range MaxPathRules + 5 {
		b.WriteString("a.example GET /$\n")
	}
	_, problems := Parse(policy.KindHTTPS, "f", []byte(b.String()))
	want := []string{`f:10001:1: the list has more than 10000 regexes; join some with "|"`}
	if diff := cmp.Diff(want, problemLines(problems.Errors())); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

func TestWarnings(t *testing.T) {
	tests := map[string]struct {
		kind policy.Kind
		text string
		want []string // "" separated parts: place and a piece of the text
	}{
		"plain hosts":                {policy.KindHTTPS, "a.example\n*.b.example\n**.c.example\n", nil},
		"a careful regex":            {policy.KindHTTPS, `a.example ^(GET|HEAD) /v1\.0/[^/?]+/x(?:[/?]|$)`, nil},
		"any path":                   {policy.KindHTTPS, "a.example POST /.*\n", nil},
		"a top-level domain":         {policy.KindHTTPS, "*.com\n", []string{`f:1:1: warning: "*.com" matches names of strangers`}},
		"a deep top-level domain":    {policy.KindSSH, "**.com\n", []string{`f:1:1: warning: "**.com" matches names of strangers`}},
		"a registry":                 {policy.KindHTTPS, "*.co.uk\n", []string{`anybody can register below "co.uk"`}},
		"a middle that crosses dots": {policy.KindHTTPS, "a.**.com\n", []string{`anybody can register below "com"`}},
		"a content network":          {policy.KindHTTPS, "*.cloudfront.net\n", []string{`anybody gets a name below "cloudfront.net"`}},
		"a cloud":                    {policy.KindHTTPS, "bedrock-runtime.*.amazonaws.com\n", []string{`anybody gets a name below "amazonaws.com"`}},
		"an exact name of a cloud":   {policy.KindHTTPS, "bedrock-runtime.us-east-1.amazonaws.com\nraw.githubusercontent.com\n", nil},
		"every host":                 {policy.KindSSH, "**\n", []string{`"**" matches every host`}},
		"every name":                 {policy.KindDNS, "*\n", []string{`"*" forwards every name`}},
		"a registry as a suffix":     {policy.KindDNS, "co.uk\n", []string{`anybody can register below "co.uk"`}},
		"a cloud as a suffix":        {policy.KindDNS, "amazonaws.com\n", []string{`anybody gets a name below "amazonaws.com"`}},
		"a line twice":               {policy.KindDNS, "a.example\nb.example\nA.example. # x\n", []string{`f:3:1: warning: "a.example" repeats line 1`}},
		"a name below a suffix":      {policy.KindDNS, "api.a.example\na.example\n", []string{`f:1:1: warning: "api.a.example" is covered by f:2 already`}},
		"a host below a glob":        {policy.KindHTTPS, "*.a.example\nx.a.example\n", []string{`f:2:1: warning: "x.a.example" is covered by f:1 already`}},
		"a host line that is scoped": {policy.KindHTTPS, "x.a.example\n*.a.example GET /$\n", []string{
			`f:1:1: warning: "x.a.example" gives nothing: the path rule f:2 applies to it; remove this line, or give it a regex`}},
		"a homograph": {policy.KindDNS, "g\u0456thub.com\nb\u00fccher.example\n\u043f\u0440\u0438\u043c\u0435\u0440.example\n", []string{
			`f:1:1: warning: "g\u0456thub", which is "xn--gthub-n2e.com", mixes letters that are Cyrillic and Latin`}},
		"two regexes for a host":  {policy.KindHTTPS, "a.example GET /x/\na.example POST /y/\n", nil},
		"an unescaped dot":        {policy.KindHTTPS, "a.example GET /v1.0/\n", []string{`f:1:18: warning: an unescaped "." matches any character; write "\."`}},
		"a dot in a class":        {policy.KindHTTPS, "a.example GET /[a-z.0-9]+/\n", nil},
		"dots in a quotation":     {policy.KindHTTPS, `a.example \QGET /v1.0/\E[a.b]+$`, nil},
		"a star across the query": {policy.KindHTTPS, "a.example GET /.*/public/\n", []string{`f:1:16: warning: ".*" also crosses "/" and "?", so what follows may match inside the query; write "[^/?]*"`}},
		"a start with anything":   {policy.KindHTTPS, "a.example .*/public/\n", []string{`f:1:11: warning: ".*" also crosses`}},
		"no end":                  {policy.KindHTTPS, "a.example GET /public\n", []string{`f:1:11: warning: the regex has no end, so it also matches longer names; end it with "/", "$" or "(?:[/?]|$)"`}},
		"no end of an alternative": {policy.KindHTTPS, "a.example GET /a/|GET /b\n", []string{
			`the regex has no end`}},
		"a method that is none":     {policy.KindHTTPS, "a.example GTE /x/\n", []string{`f:1:11: warning: "GTE" is not a registered method, and methods are case-sensitive; write for example "GET" or "POST"`}},
		"a method in lower case":    {policy.KindHTTPS, "a.example get /x/\n", []string{`"get" is not a registered method`}},
		"a method in either case":   {policy.KindHTTPS, "a.example (?i)get /x/\n", nil},
		"a group around the method": {policy.KindHTTPS, "a.example (?:GE[TX]) /x/\n", nil},
		"any method":                {policy.KindHTTPS, "a.example [A-Z]+ /x/\n", nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			rules, problems := Parse(tc.kind, "f", []byte(tc.text))
			if err := problems.Err(); err != nil || rules == nil {
				t.Fatalf("refused: %v", err)
			}
			got := problemLines(problems.Warnings())
			if len(got) != len(tc.want) {
				t.Fatalf("warnings %q, want %q", got, tc.want)
			}
			for i := range got {
				if !strings.Contains(got[i], tc.want[i]) {
					t.Errorf("warning %q, want %q", got[i], tc.want[i])
				}
			}
		})
	}
}

func TestAHundredThousandLinesAreRead(t *testing.T) {
	// No time is asserted here, only that nothing grows with the square: this
	// test would take minutes then.
	var b strings.Builder
	for i := range 100_000 {
		b.WriteString("host-" + strings.Repeat("x", i%20) + "-" + string(rune('a'+i%26)) + ".r" + strings.Repeat("y", i%30) + ".example.com\n")
	}
	if _, problems := Parse(policy.KindHTTPS, "f", []byte(b.String())); problems.Err() != nil {
		t.Fatal(problems.Errors()[0])
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a.example\n", "a.example GET /x # y\n", "\ufeffa.example\r\n# c", "*ok.com\n*", "a.example #\n", "b\u00fc.example\t(?=", "a.b /x|GET /"} {
		for i := range policy.Kinds() {
			f.Add(s, i)
		}
	}
	f.Fuzz(func(t *testing.T, text string, i int) {
		kind := policy.Kinds()[uint(i)%3]
		rules, problems := Parse(kind, "f", []byte(text))
		for _, p := range problems {
			if p.What == "" || strings.ContainsAny(p.String(), "\x00\x1b\n\r") {
				t.Fatalf("%+q: problem %+q", text, p)
			}
		}
		if problems.Err() != nil {
			if rules != nil {
				t.Fatalf("%+q is refused and has rules", text)
			}
			return
		}
		// Invariant: what is accepted reads back as the same rules.
		var b strings.Builder
		for _, r := range rules {
			b.WriteString(r.String() + "\n")
		}
		again, problems := Parse(kind, "f", []byte(b.String()))
		if err := problems.Err(); err != nil {
			t.Fatalf("%+q is written as %+q, which is refused: %v", text, b.String(), err)
		}
		if len(again) != len(rules) {
			t.Fatalf("%+q has %d rules, written %d", text, len(rules), len(again))
		}
		for i := range rules {
			if rules[i].String() != again[i].String() || rules[i].Host != again[i].Host {
				t.Fatalf("%+q: rule %q reads back as %q", text, rules[i], again[i])
			}
		}
	})
}
