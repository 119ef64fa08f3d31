package sshproxy

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

func TestParseHeadAccepts(t *testing.T) {
	for name, head := range map[string]string{
		"HTTP/1.1 with Host":             "CONNECT git.test:22 HTTP/1.1\r\nHost: git.test:22\r\n\r\n",
		"Host without the port":          "CONNECT git.test:22 HTTP/1.1\r\nHost: git.test\r\n\r\n",
		"HTTP/1.0 without fields":        "CONNECT git.test:22 HTTP/1.0\r\n\r\n",
		"upper case and a trailing dot":  "CONNECT GIT.TEST.:22 HTTP/1.1\r\nHost: git.test:22\r\n\r\n",
		"other fields without a meaning": "CONNECT git.test:22 HTTP/1.1\r\nUser-Agent: a\tb\r\nhOsT:git.test:22 \r\nProxy-Connection:\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, refused := parseHead([]byte(head))
			if refused != nil || got.host.String() != "git.test" || got.port != 22 {
				t.Errorf("parseHead = %+v, %+v, want git.test:22", got, refused)
			}
		})
	}
}

func TestParseHeadRefuses(t *testing.T) {
	connect := func(authority string) string {
		return "CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\n\r\n"
	}
	const good = "CONNECT git.test:22 HTTP/1.1\r\nHost: git.test:22\r\n"
	for name, test := range map[string]struct {
		head   string
		status int
		reason policy.Reason
	}{
		"an IPv4 address":             {connect("169.254.169.254:22"), 400, policy.Malformed},
		"an IPv6 address":             {connect("[::1]:22"), 400, policy.Malformed},
		"a decimal address":           {connect("2130706433:22"), 400, policy.Malformed},
		"a hexadecimal address":       {connect("0x7f.1:22"), 400, policy.Malformed},
		"zero":                        {connect("0:22"), 400, policy.Malformed},
		"localhost":                   {connect("localhost:22"), 400, policy.Malformed},
		"brackets around a name":      {connect("[git.test]:22"), 400, policy.Malformed},
		"userinfo":                    {connect("git.test:22@evil.test:22"), 400, policy.Malformed},
		"two authorities":             {connect("git.test:22,evil.test:22"), 400, policy.Malformed},
		"a percent escape":            {connect("git%2etest:22"), 400, policy.Malformed},
		"no port":                     {connect("git.test"), 400, policy.Malformed},
		"an empty port":               {connect("git.test:"), 400, policy.Malformed},
		"port 022":                    {connect("git.test:022"), 400, policy.Malformed},
		"port 65558, which wraps":     {connect("git.test:65558"), 400, policy.Malformed},
		"port +22":                    {connect("git.test:+22"), 400, policy.Malformed},
		"port 443":                    {connect("git.test:443"), 403, policy.Port},
		"port 2222":                   {connect("git.test:2222"), 403, policy.Port},
		"another Host":                {"CONNECT git.test:22 HTTP/1.1\r\nHost: evil.test:22\r\n\r\n", 400, policy.Malformed},
		"another port in Host":        {"CONNECT git.test:22 HTTP/1.1\r\nHost: git.test:443\r\n\r\n", 400, policy.Malformed},
		"no Host in HTTP/1.1":         {"CONNECT git.test:22 HTTP/1.1\r\n\r\n", 400, policy.Malformed},
		"two Hosts":                   {good + "Host: git.test:22\r\n\r\n", 400, policy.Malformed},
		"a body by length":            {good + "Content-Length: 0\r\n\r\n", 400, policy.Malformed},
		"a body by chunks":            {good + "Transfer-Encoding: chunked\r\n\r\n", 400, policy.Malformed},
		"a folded field":              {good + "A: b\r\n c\r\n\r\n", 400, policy.Malformed},
		"a space before the colon":    {good + "A : b\r\n\r\n", 400, policy.Malformed},
		"a field without a colon":     {good + "A\r\n\r\n", 400, policy.Malformed},
		"a NUL in a field":            {good + "A: \x00\r\n\r\n", 400, policy.Malformed},
		"a bare CR in a field":        {good + "A: b\rHost: x\r\n\r\n", 400, policy.Malformed},
		"a bare LF in a field":        {good + "A: b\nContent-Length: 5\r\n\r\n", 400, policy.Malformed},
		"a bare LF after the target":  {"CONNECT git.test:22 HTTP/1.1\nHost: git.test:22\r\n\r\n", 400, policy.Malformed},
		"two spaces":                  {"CONNECT  git.test:22 HTTP/1.1\r\nHost: git.test:22\r\n\r\n", 400, policy.Malformed},
		"a tab":                       {"CONNECT\tgit.test:22 HTTP/1.1\r\nHost: git.test:22\r\n\r\n", 400, policy.Malformed},
		"a leading empty line":        {"\r\nCONNECT git.test:22 HTTP/1.1\r\nHost: git.test:22\r\n\r\n", 400, policy.Malformed},
		"no version":                  {"CONNECT git.test:22\r\nHost: git.test:22\r\n\r\n", 400, policy.Malformed},
		"HTTP/2 by name":              {"CONNECT git.test:22 HTTP/2.0\r\nHost: git.test:22\r\n\r\n", 400, policy.Malformed},
		"the HTTP/2 preface":          {"PRI * HTTP/2.0\r\n\r\n", 400, policy.Malformed},
		"connect in lower case":       {"connect git.test:22 HTTP/1.1\r\nHost: git.test:22\r\n\r\n", 405, policy.Malformed},
		"GET in absolute form":        {"GET http://git.test/ HTTP/1.1\r\nHost: git.test\r\n\r\n", 405, policy.Cleartext},
		"GET in origin form":          {"GET / HTTP/1.1\r\nHost: git.test\r\n\r\n", 405, policy.Malformed},
		"very many fields":            {good + strings.Repeat("A: b\r\n", 100) + "\r\n", 400, policy.Malformed},
		"a name that is no ASCII":     {connect("gıt.test:22"), 400, policy.Malformed},
		"a NUL in the name":           {connect("evil.test\x00.git.test:22"), 400, policy.Malformed},
		"nothing but the empty line":  {"\r\n\r\n", 400, policy.Malformed},
		"a request line of one space": {" \r\n\r\n", 400, policy.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			got, refused := parseHead([]byte(test.head))
			if refused == nil {
				t.Fatalf("parseHead accepted %+v", got)
			}
			if refused.status != test.status || refused.reason != test.reason {
				t.Errorf("parseHead refused with %d %s, want %d %s", refused.status, refused.reason, test.status, test.reason)
			}
			answer := refused.response("default", false)
			response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
			if err != nil {
				t.Fatalf("the answer is no HTTP response: %v\n%q", err, answer)
			}
			if code := response.Header.Get("Rootcell-Deny"); code != string(test.reason) {
				t.Errorf("Rootcell-Deny: %s, want %s", code, test.reason)
			}
		})
	}
}

func TestAnswersToHostileInputStayPrintable(t *testing.T) {
	r := malformed("a\r\nSet-Cookie: x\x1b[2J\xff")
	for i, c := range r.response("default", false) {
		if c != '\r' && c != '\n' && (c < ' ' || c > '~') {
			t.Errorf("byte %d of the answer is %#x", i, c)
		}
	}
	if lines := bytes.Count(r.response("default", false), []byte("\r\n")); lines != 6 {
		t.Errorf("the answer's head has %d lines, want 6: something was injected", lines)
	}
}

// FuzzParseHead holds the parser against net/http: whatever we accept it reads
// alike, and the host we dial is the one that it sees.
func FuzzParseHead(f *testing.F) {
	f.Add([]byte("CONNECT git.test:22 HTTP/1.1\r\nHost: git.test:22\r\n\r\n"))
	f.Add([]byte("CONNECT GIT.test.:22 HTTP/1.0\r\nAccept: application/json\r\n\r\n"))
	f.Add([]byte("CONNECT git.test:22 HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 4\r\n\r\n"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\n"))
	f.Add([]byte("GET http://git.test/ HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		end := bytes.Index(data, []byte("\r\n\r\n"))
		if end < 0 || end > maxHead {
			return
		}
		head := data[:end+4]
		got, refused := parseHead(head)
		if refused != nil {
			if answer := refused.response("default", got.wantJSON); !bytes.HasPrefix(answer, []byte("HTTP/1.1 ")) {
				t.Fatalf("answer %q", answer)
			}
			return
		}
		if hopeless(head) {
			t.Fatalf("%q is accepted and hopeless", head)
		}
		request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		if err != nil {
			t.Fatalf("accepted %q, which net/http refuses: %v", head, err)
		}
		host, port, _ := strings.Cut(request.RequestURI, ":")
		if request.Method != http.MethodConnect || port != "22" ||
			got.host.String() != strings.TrimSuffix(strings.ToLower(host), ".") {
			t.Fatalf("%q: decided on %s, net/http sees %s %s", head, got.host, request.Method, request.RequestURI)
		}
		if request.ContentLength != 0 || len(request.TransferEncoding) != 0 {
			t.Fatalf("accepted a body: %q", head)
		}
	})
}
