package hostname

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("a", 63)
	tests := map[string]struct {
		in, want string // want "" is a refusal
		why      string // a part of the refusal's text
	}{
		"lower-cases":                              {in: "API.GitHub.COM", want: "api.github.com"},
		"removes one trailing dot":                 {in: "github.com.", want: "github.com"},
		"removes no second trailing dot":           {in: "github.com..", why: "empty label"},
		"keeps A-labels as they are":               {in: "xn--bcher-kva.example", want: "xn--bcher-kva.example"},
		"keeps hyphens inside":                     {in: "r3---sn-x.example.com", want: "r3---sn-x.example.com"},
		"keeps labels that are numbers":            {in: "1.2.example", want: "1.2.example"},
		"takes a label of 63":                      {in: long + ".com", want: long + ".com"},
		"refuses a label of 64":                    {in: long + "a.com", why: "longer than 63"},
		"takes a name of 253":                      {in: strings.Repeat("a.", 126) + "a", want: strings.Repeat("a.", 126) + "a"},
		"refuses a name of 254":                    {in: strings.Repeat("a.", 126) + "aa", why: "longer than 253"},
		"refuses nothing":                          {in: "", why: "empty"},
		"refuses a lone dot":                       {in: ".", why: "empty"},
		"refuses an empty first label":             {in: ".github.com", why: "empty label"},
		"refuses an empty middle label":            {in: "github..com", why: "empty label"},
		"refuses a single label":                   {in: "localhost", why: "single label"},
		"refuses a single label with its dot":      {in: "localhost.", why: "single label"},
		"refuses an underscore":                    {in: "_dmarc.example.com", why: "underscore"},
		"refuses a hyphen first":                   {in: "-a.example.com", why: "hyphen"},
		"refuses a hyphen last":                    {in: "a-.example.com", why: "hyphen"},
		"refuses a NUL":                            {in: "evil.test\x00.github.com", why: `'\x00'`},
		"refuses a space":                          {in: "github.com evil", why: "' '"},
		"refuses a tab":                            {in: "github.com\t", why: `'\t'`},
		"refuses a newline":                        {in: "github.com\n", why: `'\n'`},
		"refuses a percent sign":                   {in: "github%2ecom.example", why: "'%'"},
		"refuses a slash":                          {in: "github.com/x", why: "'/'"},
		"refuses a backslash":                      {in: `github.com\x`, why: `'\\'`},
		"refuses a number sign":                    {in: "evil.test#.github.com", why: "'#'"},
		"refuses a wildcard":                       {in: "*.github.com", why: "'*'"},
		"refuses a port":                           {in: "github.com:443", why: "colon"},
		"refuses userinfo":                         {in: "github.com@evil.test", why: "'@'"},
		"refuses UTF-8":                            {in: "g\u0456thub.com", why: "not ASCII"},
		"refuses full-width digits":                {in: "１２７.0.0.1", why: "not ASCII"},
		"refuses invalid UTF-8":                    {in: "a\xff.com", why: "not ASCII"},
		"refuses IPv4":                             {in: "127.0.0.1", why: "IP address"},
		"refuses IPv4 with a dot":                  {in: "127.0.0.1.", why: "IP address"},
		"refuses short IPv4":                       {in: "127.1", why: "IP address"},
		"refuses a decimal IPv4":                   {in: "2130706433", why: "IP address"},
		"refuses an octal IPv4":                    {in: "0177.0.0.1", why: "IP address"},
		"refuses a hexadecimal IPv4":               {in: "0x7f.1", why: "IP address"},
		"refuses a hexadecimal last label":         {in: "127.0.0.0x1", why: "IP address"},
		"refuses an upper-case hexadecimal":        {in: "0X7F000001", why: "IP address"},
		"refuses a bare hexadecimal prefix":        {in: "a.0x", why: "IP address"},
		"refuses a numeric top-level domain":       {in: "example.123", why: "IP address"},
		"refuses IPv6":                             {in: "::1", why: "colon"},
		"refuses IPv6 in brackets":                 {in: "[::1]", why: "IP address"},
		"refuses a zone":                           {in: "[fe80::1%25eth0]", why: "IP address"},
		"refuses IPv6 that embeds an IPv4 address": {in: "::ffff:127.0.0.1", why: "colon"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(tc.in)
			checkResult(t, tc.in, got, err, tc.want, tc.why)
		})
	}
}

func TestParseUser(t *testing.T) {
	tests := map[string]struct{ in, want, why string }{
		"turns an international name into A-labels": {in: "Bücher.example", want: "xn--bcher-kva.example"},
		"keeps sharp s (non-transitional)":          {in: "faß.de", want: "xn--fa-hia.de"},
		"takes an ideographic full stop as a dot":   {in: "github。com", want: "github.com"},
		"shows a homograph as an A-label":           {in: "g\u0456thub.com", want: "xn--gthub-n2e.com"},
		"removes the trailing dot":                  {in: "bücher.example.", want: "xn--bcher-kva.example"},
		"lower-cases ASCII as Parse does":           {in: "GitHub.COM", want: "github.com"},
		"refuses a full-width IP address":           {in: "１２７.０.０.１", why: "IP address"},
		"refuses one international label":           {in: "bücher", why: "single label"},
		"refuses full-width punctuation":            {in: "github.com／x", why: "IDNA"},
		"refuses invalid UTF-8":                     {in: "a\xff.com", why: "UTF-8"},
		"refuses zero-width characters":             {in: "git\u200bhub\u200d.com", why: "IDNA"},
		"refuses an over-long label":                {in: strings.Repeat("ü", 63) + ".de", why: "longer than"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseUser(tc.in)
			checkResult(t, tc.in, got, err, tc.want, tc.why)
		})
	}
}

func checkResult(t *testing.T, in string, got Name, err error, want, why string) {
	t.Helper()
	if got.String() != want {
		t.Errorf("%+q is %q (%v), want %q", in, got, err, want)
	}
	if want != "" && err != nil || want == "" && err == nil {
		t.Fatalf("%+q: error %v with result %q", in, err, got)
	}
	if err == nil {
		return
	}
	var pe *ParseError
	if !errors.As(err, &pe) {
		t.Fatalf("%+q: error of type %T", in, err)
	}
	if !strings.Contains(pe.Why, why) {
		t.Errorf("%+q refused because %q, want something with %q", in, pe.Why, why)
	}
}

func TestParseAuthority(t *testing.T) {
	tests := map[string]struct {
		in, host string // host "" is a refusal
		port     uint16
	}{
		"host alone":              {in: "GitHub.com", host: "github.com"},
		"host and port":           {in: "github.com:22", host: "github.com", port: 22},
		"highest port":            {in: "github.com:65535", host: "github.com", port: 65535},
		"trailing dot":            {in: "github.com.:443", host: "github.com", port: 443},
		"empty port":              {in: "github.com:"},
		"port zero":               {in: "github.com:0"},
		"leading zero":            {in: "github.com:022"},
		"port too high":           {in: "github.com:65536"},
		"port that wraps":         {in: "github.com:65558"},
		"port with a sign":        {in: "github.com:+22"},
		"port with a space":       {in: "github.com: 22"},
		"hexadecimal port":        {in: "github.com:0x16"},
		"full-width port":         {in: "github.com:２２"},
		"two ports":               {in: "github.com:22:22"},
		"userinfo":                {in: "github.com@evil.test:22"},
		"userinfo with a port":    {in: "github.com:22@evil.test:22"},
		"brackets":                {in: "[github.com]:22"},
		"IPv6":                    {in: "[::1]:22"},
		"IPv4":                    {in: "127.0.0.1:22"},
		"no host":                 {in: ":22"},
		"nothing":                 {in: ""},
		"path":                    {in: "github.com/x"},
		"scheme":                  {in: "https://github.com"},
		"international name":      {in: "bücher.example:22"},
		"fragment before the dot": {in: "evil.test#.github.com"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			host, port, err := ParseAuthority(tc.in)
			if host.String() != tc.host || port != tc.port || (err == nil) != (tc.host != "") {
				t.Errorf("%q is (%q, %d, %v), want (%q, %d)", tc.in, host, port, err, tc.host, tc.port)
			}
		})
	}
}

func TestErrorsAreShortAndPrintable(t *testing.T) {
	_, err := Parse("\x1b[2J" + strings.Repeat("é", 5000))
	if err == nil || len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\x1bé") {
		t.Errorf("error is not fit for a terminal: %v", err)
	}
}

var ldh = regexp.MustCompile(`\A(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z`)

// checkNormal holds for every name that any function of this package returns.
func checkNormal(t *testing.T, in string, n Name) {
	t.Helper()
	if !ldh.MatchString(n.String()) || len(n.String()) > MaxLength {
		t.Fatalf("%+q became %+q, which is not a normal host name", in, n)
	}
	again, err := Parse(n.String())
	if err != nil || again != n {
		t.Fatalf("%+q became %q, and that %q (%v)", in, n, again, err)
	}
	if user, err := ParseUser(n.String()); err != nil || user != n {
		t.Fatalf("%+q became %q, which ParseUser makes %q (%v)", in, n, user, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"GitHub.com.", "a_b.c", "127.1", "0x7f.1", "xn--a.b", "a..b", "\x00.b", "[::1]", "１.2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			if !n.IsZero() {
				t.Fatalf("%+q is refused and yet %q", s, n)
			}
			return
		}
		checkNormal(t, s, n)
		if !strings.EqualFold(strings.TrimSuffix(s, "."), n.String()) {
			t.Fatalf("%+q became another name, %q", s, n)
		}
	})
}

func FuzzParseUser(f *testing.F) {
	for _, s := range []string{"Bücher.example", "github。com", "faß.de", "１２７.1", "xn--a-.b", "a\u200d.b", "GitHub.com."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseUser(s)
		if err == nil {
			checkNormal(t, s, n)
		}
		if isASCII(s) {
			wire, wireErr := Parse(s)
			if wire != n || (wireErr == nil) != (err == nil) {
				t.Fatalf("%q: ParseUser says (%q, %v), Parse (%q, %v)", s, n, err, wire, wireErr)
			}
		}
	})
}

func FuzzParseAuthority(f *testing.F) {
	for _, s := range []string{"a.b:22", "a.b:022", "a.b@c.d:1", "[::1]:1", "a.b:", "a.b:65536"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, _, err := ParseAuthority(s)
		if err != nil {
			return
		}
		checkNormal(t, s, n)
		if strings.ContainsAny(s, "@[]/\\#%") {
			t.Fatalf("%q passed as %q", s, n)
		}
	})
}
