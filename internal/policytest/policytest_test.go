package policytest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

// TestCases is the first of the three runners of checks/cases.
func TestCases(t *testing.T) {
	files, err := Load("../../checks/cases")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[policy.Reason]bool{}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f.Path), ".toml"), func(t *testing.T) {
			for _, r := range f.Run(nil) {
				seen[r.Case.Reason] = true
				if r.Difference != "" {
					t.Errorf("%s:%d: %s: %s", f.Path, r.Case.Line, r.Case.Name, r.Difference)
				}
			}
		})
	}
	for _, reason := range []policy.Reason{policy.NoRule, policy.PathRule, policy.AmbiguousPath, policy.BadPolicy, policy.Malformed, policy.Port, policy.SNIHostMismatch} {
		if !seen[reason] {
			t.Errorf("no case is denied with %s", reason)
		}
	}
}

const good = `schema = 1
about = "what a case looks like"

[policy]
dns = "a.example"
https = """
a.example
b.example GET /public/
"""

[[case]]
name = "a request"
kind = "https"
url = "https://b.example:443/public/%2e?x#y"
verdict = "deny"
reason = "malformed"

[[case]]
name = "a handshake"
kind = "https"
host = "a.example"
verdict = "allow"
rule = "allowed-https.txt:1"
`

func TestParse(t *testing.T) {
	f, err := Parse("f.toml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	want := File{Path: "f.toml", About: "what a case looks like", HasLists: true,
		Lists: policyfile.Files{
			policy.KindDNS:   {Name: "allowed-dns.txt", Text: "a.example"},
			policy.KindHTTPS: {Name: "allowed-https.txt", Text: "a.example\nb.example GET /public/\n"},
		},
		Cases: []Case{
			{Line: 11, Name: "a request", Kind: "https", URL: "https://b.example:443/public/%2e?x#y", Method: "GET", Verdict: Deny, Reason: policy.Malformed},
			{Line: 18, Name: "a handshake", Kind: "https", Host: "a.example", Verdict: Allow, Rule: "allowed-https.txt:1"},
		}}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}

func TestParseErrors(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"no schema":      {"[[case]]\nname='a'\nkind='dns'\nhost='a.b'\nverdict='allow'", `f: schema is 0, and this version reads 1; write "schema = 1"`},
		"another schema": {"\nschema = 2\n[[case]]\nname='a'\nkind='dns'\nhost='a.b'\nverdict='allow'", `f:2:1: schema is 2, and this version reads 1; write "schema = 1"`},
		"no case":        {"schema = 1\n", `f: the file has no case; add a [[case]] table`},
		"a syntax error": {"schema = 1\n[case\n", `f:2:6: `},
		"a wrong type":   {"schema = '1'\n", `f:1:10: `},
		"unknown keys":   {"schema = 1\nscheme = 2\n[[case]]\nurI = ''\n", "f:2:1: unknown key \"scheme\"; remove it; checks/README.md lists the keys\nf:4:1: unknown key \"case.urI\"; remove it; checks/README.md lists the keys"},
		"an error in a list": {"schema = 1\n[policy]\nhttps = '*ok.com'\n[[case]]\nname='a'\nkind='dns'\nhost='a.b'\nverdict='allow'",
			`f:3:1: allowed-https.txt:1:1: "*ok.com" is not a rule`},
		"a list that should be broken": {"schema = 1\n[policy]\nhttps = 'ok.com'\nbroken = ['https','ssh','x']\n[[case]]\nname='a'\nkind='dns'\nhost='a.b'\nverdict='allow'",
			"f:4:1: the https list has no error\nf:4:1: there is no ssh list that could be broken\nf:4:1: \"x\" is no kind; write dns, https or ssh"},
		"every problem of every case": {"schema = 1\n[[case]]\n  [[case]]\n  name = 'x'\n  kind = 'http'\n  verdict = 'yes'\n", strings.Join([]string{
			`f:2:3: the case has no name; say in a sentence what it shows`,
			`f:2:3: "" is no kind; write dns, https or ssh`,
			`f:2:3: the verdict is ""; write "allow" or "deny"`,
			`f:5:3: "http" is no kind; write dns, https or ssh`,
			`f:6:3: the verdict is "yes"; write "allow" or "deny"`}, "\n")},
		"a name twice":                   {"schema = 1\n" + strings.Repeat("[[case]]\nname='a'\nkind='dns'\nhost='a.b'\nverdict='allow'\n", 2), `f:8:1: the case of line 2 has the same name`},
		"a host and a url":               {"schema = 1\n[[case]]\nname='a'\nkind='https'\nhost='a.b'\nurl='https://a.b'\nverdict='allow'", `f:2:3: a case has either a host or a url`},
		"a url for DNS":                  {"schema = 1\n[[case]]\nname='a'\nkind='dns'\nurl='https://a.b'\nverdict='allow'", `f:5:1: a dns case has no url`},
		"a cleartext url":                {"schema = 1\n[[case]]\nname='a'\nkind='https'\nurl='http://a.b'\nverdict='allow'", `f:5:1: "http://a.b" does not begin with "https://"`},
		"a method for a host":            {"schema = 1\n[[case]]\nname='a'\nkind='https'\nhost='a.b'\nmethod='GET'\nverdict='allow'", `f:6:1: a case without a url has no method`},
		"allowed, with a reason":         {"schema = 1\n[[case]]\nname='a'\nkind='dns'\nhost='a.b'\nverdict='allow'\nreason='no-rule'", `f:7:1: only what is denied has a reason`},
		"denied, without one":            {"schema = 1\n[[case]]\nname='a'\nkind='dns'\nhost='a.b'\nverdict='deny'", `f:2:3: "" is no reason`},
		"denied, with no reason of ours": {"schema = 1\n[[case]]\nname='a'\nkind='dns'\nhost='a.b'\nverdict='deny'\nreason='because'", `f:7:1: "because" is no reason`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f", []byte(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error:\n%v\nwant:\n%s", err, tc.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := Load(dir); err == nil {
		t.Error("a directory without case files loads")
	}
	one := write("one.toml", good)
	write("notes.txt", "x")
	if files, err := Load(dir); err != nil || len(files) != 1 || files[0].Path != one {
		t.Errorf("loaded %v (%v)", files, err)
	}
	bad := write("two.toml", "schema = 3")
	_, err := Load(one, bad, filepath.Join(dir, "missing.toml"))
	for _, want := range []string{"two.toml:1:1: schema is 3", "two.toml: the file has no case", "missing.toml: no such file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// A runner that never fails proves nothing: each way in which a case can be
// wrong about its lists has to show.
func TestDifferences(t *testing.T) {
	f, err := Parse("f", []byte(`
schema = 1
[[case]]
name = "allowed instead of denied"
kind = "dns"
host = "a.example"
verdict = "deny"
reason = "no-rule"
[[case]]
name = "denied for another reason"
kind = "https"
url = "https://a.example/x"
verdict = "deny"
reason = "no-rule"
[[case]]
name = "by another line"
kind = "https"
url = "https://a.example/public/"
verdict = "allow"
rule = "allowed-https.txt:7"
[[case]]
name = "as expected"
kind = "ssh"
host = "a.example"
verdict = "deny"
reason = "bad-policy"
`))
	if err != nil {
		t.Fatal(err)
	}
	live := policyfile.Files{
		policy.KindDNS:   {Name: "allowed-dns.txt", Text: "a.example"},
		policy.KindHTTPS: {Name: "allowed-https.txt", Text: "a.example GET /public/"},
	}
	var got []string
	for _, r := range f.Run(live) {
		got = append(got, r.Difference)
	}
	want := []string{
		"it is allow by allowed-dns.txt:1, want deny (no-rule)",
		"it is deny (path-rule) by allowed-https.txt:1, want deny (no-rule)",
		`the line that decides is "allowed-https.txt:1", want "allowed-https.txt:7"`,
		"",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
}

func TestAuthority(t *testing.T) {
	for url, want := range map[string][2]string{
		"https://a.example":             {"a.example", "/"},
		"https://a.example:443":         {"a.example:443", "/"},
		"https://a.example?x":           {"a.example", "/?x"},
		"https://a.example/../%2e//x?y": {"a.example", "/../%2e//x?y"},
		"https://u@a.example/x":         {"u@a.example", "/x"},
	} {
		if a, target := (Case{URL: url}).Authority(); a != want[0] || target != want[1] {
			t.Errorf("%q is %q and %q", url, a, target)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add("schema = 1\n[[case]]\n[policy]\nbroken=['x']\n")
	f.Add("schema = 1\ncase = [{name='a'}]\npolicy.dns = 'a'\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse("f", []byte(text))
		if err == nil {
			file.Run(nil)
		}
	})
}
