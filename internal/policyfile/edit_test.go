package policyfile

import (
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

func TestAdd(t *testing.T) {
	const https = "# web\na.example # note\n\n*.glob.example\ns.example GET /a/\n"
	tests := map[string]struct {
		kind       policy.Kind
		text       string
		host, path string
		want       string // the text after; "=" is the text before
		err        string
	}{
		"a new host":                          {policy.KindHTTPS, https, "B.Example", "", https + "b.example\n", ""},
		"a host that is there":                {policy.KindHTTPS, https, "a.example", "", "=", ""},
		"a host that is there, spelled anew":  {policy.KindHTTPS, https, "A.EXAMPLE.", "", "=", ""},
		"a host that a glob covers":           {policy.KindHTTPS, https, "x.glob.example", "", "=", ""},
		"a glob":                              {policy.KindHTTPS, https, "*.more.example", "", https + "*.more.example\n", ""},
		"a glob that is there":                {policy.KindHTTPS, https, "*.glob.example", "", "=", ""},
		"a path for a new host":               {policy.KindHTTPS, https, "b.example", "GET /x/", https + "b.example GET /x/\n", ""},
		"a further path":                      {policy.KindHTTPS, https, "s.example", "GET /b/", https + "s.example GET /b/\n", ""},
		"a path that is there":                {policy.KindHTTPS, https, "s.example", "GET /a/", "=", ""},
		"a host where paths decide":           {policy.KindHTTPS, https, "s.example", "", "=", "the path rule allowed-https.txt:5 applies to it"},
		"a path where the host is open":       {policy.KindHTTPS, https, "a.example", "GET /x/", "=", "allowed-https.txt:2 allows every request to a.example"},
		"a path on a glob over an open host":  {policy.KindHTTPS, https, "*.example", "GET /x/", "=", "allowed-https.txt:2 allows every request to a.example"},
		"a path on a glob over a scoped host": {policy.KindHTTPS, https, "s.*", "GET /x/", "=", "ends in a wildcard"},
		"a path on a glob that is open":       {policy.KindHTTPS, https, "x.glob.example", "GET /x/", "=", "allowed-https.txt:4 allows every request to *.glob.example"},
		"a name below a suffix":               {policy.KindDNS, "a.example\n", "x.a.example", "", "=", ""},
		"an international name":               {policy.KindDNS, "", "bücher.example", "", "xn--bcher-kva.example\n", ""},
		"an empty list":                       {policy.KindSSH, "", "a.example", "", "a.example\n", ""},
		"a list without its last line end":    {policy.KindSSH, "b.example", "a.example", "", "b.example\na.example\n", ""},
		"a list with Windows line ends":       {policy.KindSSH, "b.example\r\n", "a.example", "", "b.example\r\na.example\r\n", ""},
		"a list of a byte order mark":         {policy.KindSSH, "\ufeff", "a.example", "", "\ufeffa.example\n", ""},
		"a comment that hides the host":       {policy.KindSSH, "# a.example\n", "a.example", "", "# a.example\na.example\n", ""},
		"a list with an error":                {policy.KindSSH, "*bad.com\n", "a.example", "", "=", "allowed-ssh.txt:1:1: "},
		"a URL":                               {policy.KindHTTPS, "", "https://a.example/x", "", "=", `write "a.example"`},
		"a path for DNS":                      {policy.KindDNS, "", "a.example", "GET /", "=", "a line of this list is one host"},
		"a regex that is none":                {policy.KindHTTPS, "", "a.example", "GET /(", "=", "the regex is not valid"},
		"a regex that no request matches":     {policy.KindHTTPS, "", "a.example", "/x", "=", `write "GET /x"`},
		"nothing":                             {policy.KindHTTPS, "", "", "", "=", "is not one rule"},
		"a path and no host":                  {policy.KindHTTPS, "", "", "GET /", "=", "is not"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			want := tc.want
			if want == "=" {
				want = tc.text
			}
			got, changed, err := Add(tc.kind, tc.text, tc.host, tc.path)
			if got != want || changed != (want != tc.text) {
				t.Errorf("text %q (changed %v), want %q", got, changed, want)
			}
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if err != nil {
				return
			}
			again, changed, err := Add(tc.kind, got, tc.host, tc.path)
			if again != got || changed || err != nil {
				t.Errorf("added twice: %q, %v, %v", again, changed, err)
			}
		})
	}
}

func TestRemove(t *testing.T) {
	const text = "\ufeff# web\r\na.example # note\r\nA.Example.\r\na.example GET /x/\r\nb.example"
	tests := map[string]struct{ host, path, want string }{
		"every spelling of a host": {"a.example", "", "\ufeff# web\r\na.example GET /x/\r\nb.example"},
		"a path rule":              {"A.example", "GET /x/", "\ufeff# web\r\na.example # note\r\nA.Example.\r\nb.example"},
		"the last line":            {"b.example", "", "\ufeff# web\r\na.example # note\r\nA.Example.\r\na.example GET /x/\r\n"},
		"what is not there":        {"c.example", "", text},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, changed, err := Remove(policy.KindHTTPS, text, tc.host, tc.path)
			if got != tc.want || changed != (tc.want != text) || err != nil {
				t.Errorf("text %q (changed %v, %v), want %q", got, changed, err, tc.want)
			}
		})
	}
	if got, changed, err := Remove(policy.KindHTTPS, "*bad.com\n", "a.example", ""); got != "*bad.com\n" || changed || err == nil {
		t.Errorf("a list with an error: %q, %v, %v", got, changed, err)
	}
}

func TestAddCannotSmuggleLines(t *testing.T) {
	for _, tc := range []struct{ host, path string }{
		{"x.example\nhttp_access allow all", ""}, {"x.example\n**", ""}, {"a.example\r**", ""}, {"a.example\n", ""},
		{"a.example GET /", ""}, {"a.example\tGET /", ""}, {"a.example #", ""}, {"#a.example", ""}, {" a.example", ""},
		{"a.example", "GET /\n**"}, {"a.example", "GET /\r\n**"}, {"a.example", "# x"}, {"a.example", "#"}, {"a.example", " # x"},
		{"a.example", "GET / # x"}, {"a.example", "GET /\x00"}, {"a.example\x00", ""}, {"a.example\u2028**", ""}, {"\ufeff**", ""},
	} {
		for _, kind := range policy.Kinds() {
			got, changed, err := Add(kind, "b.example\n", tc.host, tc.path)
			if got != "b.example\n" || changed || err == nil {
				t.Errorf("%s %+q %+q: %q (changed %v, %v)", kind, tc.host, tc.path, got, changed, err)
			}
		}
	}
}

func TestExactPath(t *testing.T) {
	for _, target := range []string{"/", "/v1.0/x?a=(b)&c=d+e", "/a%20b/*/[x]{2}|^$", `/x\y`} {
		text, changed, err := Add(policy.KindHTTPS, "", "a.example", ExactPath("POST", target))
		if err != nil || !changed {
			t.Fatalf("%q: %v", target, err)
		}
		rules, problems := Parse(policy.KindHTTPS, "f", []byte(text))
		if len(problems) > 0 {
			t.Errorf("%q: %v", target, problems)
		}
		for other, want := range map[string]bool{target: true, target + "x": false, "/x" + target: false} {
			if got := rules[0].Path.Match("POST", other); got != want {
				t.Errorf("%q matches %q: %v", rules[0].Path, other, got)
			}
		}
		if rules[0].Path.Match("GET", target) {
			t.Errorf("%q matches another method", rules[0].Path)
		}
	}
}

func FuzzAdd(f *testing.F) {
	f.Add("a.example\n# x", "b.example", "", 1)
	f.Add("a.example\r\n", "b.example", "GET /x", 1)
	f.Add("\ufeff", "*.b.example", " #", 2)
	f.Fuzz(func(t *testing.T, text, host, path string, i int) {
		kind := policy.Kinds()[uint(i)%3]
		before, problems := Parse(kind, "f", []byte(text))
		if problems.Err() != nil {
			return
		}
		got, changed, err := Add(kind, text, host, path)
		if err != nil || !changed {
			if got != text {
				t.Fatalf("%+q changed to %+q (%v)", text, got, err)
			}
			return
		}
		if !strings.HasPrefix(got, text) {
			t.Fatalf("%+q changed to %+q", text, got)
		}
		after, problems := Parse(kind, "f", []byte(got))
		if err := problems.Err(); err != nil || len(after) != len(before)+1 {
			t.Fatalf("%+q with %+q %+q has %d rules instead of %d (%v)", text, host, path, len(after), len(before)+1, err)
		}
	})
}
