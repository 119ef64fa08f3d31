//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

const okHost = "Host: ok.test.example\r\n"

func TestSmuggling(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{})
	post := func(fields, body string) string { return "POST /a HTTP/1.1\r\n" + okHost + fields + "\r\n\r\n" + body }
	const inner = "0\r\n\r\nGET /smuggled HTTP/1.1\r\n" + okHost + "\r\n"
	for name, request := range map[string]string{
		"B1 two Host lines":              "GET /a HTTP/1.1\r\n" + okHost + "Host: no.test.example\r\n\r\n",
		"B1 the same Host twice":         "GET /a HTTP/1.1\r\n" + okHost + okHost + "\r\n",
		"B1 comma Host":                  "GET /a HTTP/1.1\r\nHost: ok.test.example, no.test.example\r\n\r\n",
		"B1 folded line":                 "GET /a HTTP/1.1\r\n" + okHost + "X: a\r\n b\r\n\r\n",
		"B1 folded Host":                 "GET /a HTTP/1.1\r\nX: a\r\n Host: no.test.example\r\n" + okHost + "\r\n",
		"B1 space before colon":          "GET /a HTTP/1.1\r\nHost : ok.test.example\r\n\r\n",
		"B2 absolute form of another":    "GET https://no.test.example/x HTTP/1.1\r\n" + okHost + "\r\n",
		"B2 absolute form of itself":     "GET https://ok.test.example/x HTTP/1.1\r\n" + okHost + "\r\n",
		"B2 absolute form, cleartext":    "GET http://ok.test.example/x HTTP/1.1\r\n" + okHost + "\r\n",
		"B3 userinfo":                    "GET /a HTTP/1.1\r\nHost: ok.test.example@no.test.example\r\n\r\n",
		"B3 another port":                "GET /a HTTP/1.1\r\nHost: ok.test.example:22\r\n\r\n",
		"B3 fragment in Host":            "GET /a HTTP/1.1\r\nHost: no.test.example#.ok.test.example\r\n\r\n",
		"B3 backslash in Host":           "GET /a HTTP/1.1\r\nHost: no.test.example\\.ok.test.example\r\n\r\n",
		"B3 zone in Host":                "GET /a HTTP/1.1\r\nHost: [::1%25eth0]\r\n\r\n",
		"B3 path in Host":                "GET /a HTTP/1.1\r\nHost: ok.test.example/x\r\n\r\n",
		"B4 length and chunked":          post("Content-Length: 4\r\nTransfer-Encoding: chunked", inner),
		"B4 chunked and length":          post("Transfer-Encoding: chunked\r\nContent-Length: 4", inner),
		"B4 two lengths":                 post("Content-Length: 4\r\nContent-Length: 5", "abcde"),
		"B4 a list of lengths":           post("Content-Length: 4, 4", "abcd"),
		"B4 signed length":               post("Content-Length: +4", "abcd"),
		"B4 hexadecimal length":          post("Content-Length: 0x4", "abcd"),
		"B4 negative length":             post("Content-Length: -4", "abcd"),
		"B4 empty length":                post("Content-Length: ", ""),
		"B4 overflowing length":          post("Content-Length: 18446744073709551620", "abcd"),
		"B4 two transfer encodings":      post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", inner),
		"B5 odd transfer encoding":       post("Transfer-Encoding: xchunked", inner),
		"B5 more than chunked":           post("Transfer-Encoding: chunkedx", inner),
		"B5 chunked then identity":       post("Transfer-Encoding: chunked, identity", inner),
		"B5 vertical tab":                post("Transfer-Encoding: \vchunked", inner),
		"B5 quoted":                      post("Transfer-Encoding: \"chunked\"", inner),
		"B5 tab in the name":             post("Transfer-Encoding\t: chunked", inner),
		"B6 bare line feed":              "GET /a HTTP/1.1\n" + okHost + "\r\n",
		"B6 bare carriage return":        "GET /a HTTP/1.1\r\n" + okHost + "X: a\rGET /b HTTP/1.1\r\n\r\n",
		"B6 NUL in a field":              "GET /a HTTP/1.1\r\n" + okHost + "X: a\x00b\r\n\r\n",
		"B12 HTTP/2 preface":             "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"B14 CONNECT inside":             "CONNECT no.test.example:443 HTTP/1.1\r\nHost: no.test.example:443\r\n\r\n",
		"B14 CONNECT to itself":          "CONNECT ok.test.example:443 HTTP/1.1\r\nHost: ok.test.example:443\r\n\r\n",
		"B15 a method that is no token":  "GE(T /a HTTP/1.1\r\n" + okHost + "\r\n",
		"B15 a tab after the method":     "GET\t/a HTTP/1.1\r\n" + okHost + "\r\n",
		"B15 TRACE":                      "TRACE /a HTTP/1.1\r\n" + okHost + "\r\n",
		"B17 HTTP/0.9":                   "GET /a\r\n\r\n",
		"B17 HTTP/1.0 without Host":      "GET /a HTTP/1.0\r\n\r\n",
		"B17 HTTP/1.1 without Host":      "GET /a HTTP/1.1\r\n\r\n",
		"B17 HTTP/1.2":                   "GET /a HTTP/1.2\r\n" + okHost + "\r\n",
		"B17 HTTP/3.0":                   "GET /a HTTP/3.0\r\n" + okHost + "\r\n",
		"B21 fragment":                   "GET /a#b HTTP/1.1\r\n" + okHost + "\r\n",
		"B29 a header of a megabyte":     "GET /a HTTP/1.1\r\n" + okHost + "X: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
		"B29 ten thousand header fields": "GET /a HTTP/1.1\r\n" + okHost + strings.Repeat("X: a\r\n", 10000) + "\r\n",
		"B29 a URL of a megabyte":        "GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\n" + okHost + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c.mark(t)
			conn := c.tls(t, "ok.test.example")
			if answer := exchange(t, conn, request); strings.Contains(answer, " 200 ") {
				t.Errorf("answered %q", answer)
			}
			_ = conn.Close()
			c.noRequest(t)
			c.denied(t, "malformed", "not-http", "tunnel", "port", "limit", "sni-host-mismatch")
		})
	}
	for name, body := range map[string]string{
		"B6 a bare line feed after a chunk's size": "5\nhello\r\n0\r\n\r\n",
		"B6 a line break in a chunk's extension":   "5;a=\nb\r\nhello\r\n0\r\n\r\n",
		"B6 an overflowing chunk size":             "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
		"B6 a chunk longer than it says":           "3\r\nhello\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			complete := make(chan string, 1)
			c.world.Host(t, "ok.test.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if body, err := io.ReadAll(r.Body); err == nil {
					complete <- string(body)
				}
			}))
			defer c.world.Host(t, "ok.test.example", nil)
			c.mark(t)
			if answer := exchange(t, c.tls(t, "ok.test.example"), post("Transfer-Encoding: chunked", body)); strings.Contains(answer, " 200 ") {
				t.Errorf("answered %q", answer)
			}
			select {
			case body := <-complete:
				t.Errorf("the far side took %q for a whole body", body)
			default:
			}
			c.denied(t, "malformed")
		})
	}
	t.Run("B6 a trailer stays a trailer", func(t *testing.T) {
		c.mark(t)
		exchange(t, c.tls(t, "ok.test.example"), post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nHost: no.test.example\r\nContent-Length: 9\r\n\r\n"))
		for _, s := range c.world.Sightings("https") {
			if s.Name != "ok.test.example" {
				t.Errorf("the far side saw %v", s)
			}
		}
	})
	t.Run("B7 a body that the server ignores", func(t *testing.T) {
		c.mark(t)
		c.world.Host(t, "ok.test.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }))
		defer c.world.Host(t, "ok.test.example", http.HandlerFunc(echoBack))
		smuggled := "GET /smuggled HTTP/1.1\r\n" + okHost + "\r\n"
		for _, fields := range []string{fmt.Sprintf("Content-Length: %d", len(smuggled)), fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d", len(smuggled))} {
			conn := c.tls(t, "ok.test.example")
			exchange(t, conn, post(fields, smuggled))
		}
		if seen := c.world.Sightings("/smuggled"); len(seen) > 0 {
			t.Errorf("a body became a request: %v", seen)
		}
	})
	t.Run("B8 B9 each request on a connection is judged", func(t *testing.T) {
		c.mark(t)
		conn := c.tls(t, "scoped.test.example")
		const scoped = "Host: scoped.test.example\r\n\r\n"
		answer := exchange(t, conn, "GET /public/1 HTTP/1.1\r\n"+scoped+"DELETE /secret HTTP/1.1\r\n"+scoped)
		if !strings.Contains(answer, " 200 ") || !strings.Contains(answer, " 403 ") {
			t.Errorf("answered %q", answer)
		}
		if seen := c.world.Sightings("https"); len(seen) != 1 || !strings.Contains(seen[0].Text, "/public/1") {
			t.Errorf("the far side saw %v", seen)
		}
		c.denied(t, "path-rule")
	})
	t.Run("B9 another host on a kept connection", func(t *testing.T) {
		c.mark(t)
		conn := c.tls(t, "ok.test.example")
		if answer := exchange(t, conn, "GET /1 HTTP/1.1\r\n"+okHost+"\r\n"); !strings.Contains(answer, " 200 ") {
			t.Errorf("answered %q", answer)
		}
		if answer := exchange(t, conn, "GET /2 HTTP/1.1\r\nHost: no.test.example\r\n\r\n"); strings.Contains(answer, " 200 ") {
			t.Errorf("answered %q", answer)
		}
		if seen := c.world.Sightings("https"); len(seen) != 1 {
			t.Errorf("the far side saw %v", seen)
		}
		c.denied(t, "sni-host-mismatch")
	})
	t.Run("B11 upgrade to h2c", func(t *testing.T) {
		c.mark(t)
		answer := exchange(t, c.tls(t, "ok.test.example"), "GET /a HTTP/1.1\r\n"+okHost+"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n")
		if strings.Contains(answer, " 101 ") {
			t.Errorf("answered %q", answer)
		}
		for _, other := range []string{"websocket, h2c", "TLS/1.2", "connect-udp"} {
			if answer := exchange(t, c.tls(t, "ok.test.example"), "GET /a HTTP/1.1\r\n"+okHost+"Connection: Upgrade\r\nUpgrade: "+other+"\r\n\r\n"); strings.Contains(answer, " 101 ") {
				t.Errorf("%s: answered %q", other, answer)
			}
		}
	})
}

func echoBack(w http.ResponseWriter, r *http.Request) {
	_, _ = fmt.Fprintf(w, "%s %s %s\n", r.Host, r.Method, r.RequestURI)
	_, _ = io.Copy(w, r.Body)
}

func TestPathRules(t *testing.T) {
	t.Parallel()
	const scoped = "scoped.test.example"
	c := newCell(t, netlab.Options{DNS: "test.example\n", SSH: "\n", HTTPS: strings.Join([]string{
		scoped + " GET /public/", "odd.test.example GET /a|GET /b$", "dots.test.example GET /v1.0/x$", "*.glob.test.example", "**.deep.test.example", "part*.test.example",
		"ok.test.example", "over.test.example GET /x$", "over.test.example GET /y$", "**.example.org", "narrow.example.org GET /only$", ""}, "\n")})
	for _, name := range []string{"odd", "dots", "a.glob", "glob", "a.b.glob", "evilglob", "a.deep", "a.b.deep", "deep", "part1", "over"} {
		c.world.Host(t, name+".test.example", nil)
	}
	for _, name := range []string{"a.example.org", "narrow.example.org"} {
		c.world.Host(t, name, nil)
	}
	probe := func(id, host, path, want string, args ...string) {
		t.Helper()
		t.Run(id, func(t *testing.T) {
			c.mark(t)
			got := c.code(t, append(args, "--path-as-is", "--resolve", host+":443:"+netlab.InternetAddr, "https://"+host+path)...)
			// What is no URL at all is refused by the HTTP/2 layer, which resets the stream.
			if got != want && !(want == "403" && got == "000") {
				t.Errorf("%s%s: %s, want %s", host, path, got, want)
			}
			if want != "200" {
				c.noRequest(t)
				c.denied(t, "path-rule", "ambiguous-path", "no-rule", "malformed")
			}
		})
	}
	for _, path := range []string{"/public/../secret", "/public/%2e%2e/secret", "/public/.%2e/secret", "/public/./../secret", "/public//../secret", "/public/x/..", "/public/x/."} {
		probe("B18 "+path, scoped, path, "403")
	}
	for _, path := range []string{"/public/..;/secret", "/public/;x/../secret", "/public/..;x=1/secret"} {
		probe("B19 "+path, scoped, path, "403")
	}
	for _, path := range []string{"/public/..%2fsecret", "/public%2f..%2fsecret", "/public/%5c..%5csecret", "/public/..\\secret", "/public/%00", "/public/%252e%252e/secret",
		"/public/%c0%ae%c0%ae/secret", "/public/%u002e%u002e/secret", "/public/%2", "/public/%zz"} {
		probe("B20 "+path, scoped, path, "403")
	}
	probe("B21 a rule's text in the query", scoped, "/secret?x=/public/", "403")
	probe("B21 a query below an allowed path", scoped, "/public/a?x=../y", "200")
	t.Run("B21 a rule's text in a fragment", func(t *testing.T) {
		c.mark(t)
		if answer := exchange(t, c.tls(t, scoped), "GET /secret#/public/ HTTP/1.1\r\nHost: "+scoped+"\r\n\r\n"); strings.Contains(answer, " 200 ") {
			t.Errorf("answered %q", answer)
		}
		c.noRequest(t)
	})
	probe("B22 a rule is anchored at its start", scoped, "/x/public/", "403")
	probe("B22 case counts", scoped, "/PUBLIC/", "403")
	probe("B22 the first of alternatives", "odd.test.example", "/a", "200")
	probe("B22 alternation does not escape the anchor", "odd.test.example", "/x/b", "403")
	probe("B22 a line feed at the end", "dots.test.example", "/v1.0/x%0a", "403")
	probe("B22 the end is the end", "dots.test.example", "/v1.0/x/y", "403")
	probe("B23 one label", "a.glob.test.example", "/", "200")
	probe("B23 not the apex", "glob.test.example", "/", "403")
	probe("B23 a star does not cross a dot", "a.b.glob.test.example", "/", "403")
	probe("B23 not part of a label", "evilglob.test.example", "/", "403")
	probe("B23 two stars cross dots", "a.b.deep.test.example", "/", "200")
	probe("B23 two stars leave out the apex too", "deep.test.example", "/", "403")
	probe("H5 any of a host's path rules", "over.test.example", "/y", "200")
	probe("H5 none of a host's path rules", "over.test.example", "/z", "403")
	probe("H5 a broad line", "a.example.org", "/anything", "200")
	probe("H5 a path rule narrows a broad line", "narrow.example.org", "/anything", "403")
	probe("H5 and allows what it says", "narrow.example.org", "/only", "200")
	for _, method := range []string{"get", "HEAD", "DELETE", "PROPFIND", "GETX"} {
		probe("B15 method "+method, scoped, "/public/x", "403", "-X", method)
	}
	for _, field := range []string{"X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE", "X-Original-URL: /secret", "X-Rewrite-URL: /secret"} {
		probe("B15 "+field, scoped, "/public/x", "403", "-H", field)
	}
	t.Run("B15 an unscoped host sees what the client sent", func(t *testing.T) {
		for _, method := range []string{"PROPFIND", "get"} {
			if got := c.code(t, "-X", method, "https://ok.test.example/"); got != "200" {
				t.Errorf("%s: %s", method, got)
			}
		}
		// The body is not looked at: a parameter that overrides the method is the server's affair.
		if got := c.code(t, "-d", "_method=DELETE", "https://ok.test.example/"); got != "200" {
			t.Errorf("_method: %s", got)
		}
	})
}

func TestHeadersAndBodies(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{})
	headers := make(chan http.Header, 8)
	c.world.Host(t, "ok.test.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers <- r.Header.Clone()
		switch r.URL.Path {
		case "/away":
			w.Header().Set("Location", "http://169.254.169.254/latest/")
			w.Header().Set("Refresh", "0; url=https://no.test.example/")
			w.WriteHeader(http.StatusFound)
		case "/alt":
			w.Header().Set("Alt-Svc", `h3=":443", h2="no.test.example:443"`)
		default:
			echoBack(w, r)
		}
	}))
	t.Run("B13 a WebSocket is judged by its handshake", func(t *testing.T) {
		c.world.Host(t, "ok2.test.example", http.HandlerFunc(acceptWebSocket))
		handshake := func(host, path, upgrade string) string {
			conn := c.tls(t, host)
			defer func() { _ = conn.Close() }()
			return exchange(t, conn, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: "+upgrade+"\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		}
		if answer := handshake("ok2.test.example", "/socket", "Upgrade"); !strings.Contains(answer, " 101 ") {
			t.Errorf("an allowed one: %q", answer)
		}
		e := c.daemon.AwaitAudit(t, map[string]any{"path": "/socket", "verdict": "allow", "status": "101"})
		if e["opaque"] != true {
			t.Errorf("the audit line does not say that the frames were not looked at: %v", e)
		}
		c.mark(t)
		if answer := handshake("scoped.test.example", "/socket", "Upgrade"); !strings.Contains(answer, " 403 ") {
			t.Errorf("a path that no rule allows: %q", answer)
		}
		c.noRequest(t)
		if answer := handshake("ok2.test.example", "/fake", "notupgrade"); strings.Contains(answer, " 101 ") {
			t.Errorf("Connection: notupgrade: %q", answer)
		}
		c.world.Host(t, "ok2.test.example", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: forged\r\n\r\ntunnel")
				_ = conn.Close()
			}
		}))
		if answer := exchange(t, c.tls(t, "ok2.test.example"), "GET /plain HTTP/1.1\r\nHost: ok2.test.example\r\n\r\n"); strings.Contains(answer, " 101 ") || strings.Contains(answer, "tunnel") {
			t.Errorf("a 101 that nobody asked for: %q", answer)
		}
		if answer := handshake("ok2.test.example", "/forged", "Upgrade"); strings.Contains(answer, " 101 ") || strings.Contains(answer, "tunnel") {
			t.Errorf("a 101 with a wrong key: %q", answer)
		}
	})
	t.Run("B16 Connection does not name end-to-end fields away", func(t *testing.T) {
		c.mark(t)
		answer := exchange(t, c.tls(t, "ok.test.example"), "GET /hop HTTP/1.1\r\n"+okHost+"Connection: close, Authorization, Host\r\nAuthorization: Basic x\r\n\r\n")
		if !strings.Contains(answer, " 200 ") {
			return // refused: nothing was dropped either
		}
		if h := <-headers; h.Get("Authorization") == "" {
			t.Errorf("the far side got %v", h)
		}
	})
	t.Run("B24 a redirect is the client's to follow", func(t *testing.T) {
		c.mark(t)
		for len(headers) > 0 {
			<-headers
		}
		r := c.curl(t, "-i", "https://ok.test.example/away")
		if !strings.Contains(r.stdout, "302") || !strings.Contains(r.stdout, "169.254.169.254") {
			t.Errorf("got %+v", r)
		}
		if seen := c.world.Sightings("https"); len(seen) != 1 {
			t.Errorf("the far side saw %v", seen)
		}
		if r := c.curl(t, "-L", "-m", "4", "https://ok.test.example/away"); r.code == 0 {
			t.Errorf("the redirect led somewhere: %+v", r)
		}
		<-headers
		<-headers
	})
	t.Run("B25 Alt-Svc steers nobody", func(t *testing.T) {
		for _, version := range []string{"--http1.1", "--http2"} {
			if r := c.curl(t, version, "-i", "https://ok.test.example/alt"); !strings.Contains(r.stdout, "200") || strings.Contains(strings.ToLower(r.stdout), "alt-svc") {
				t.Errorf("%s: %+v", version, r)
			}
			<-headers
		}
	})
	t.Run("B26 ranges and codings pass as they are", func(t *testing.T) {
		if got := c.code(t, "-r", "0-0,1-1", "-H", "Accept-Encoding: br, zstd", "https://ok.test.example/part"); got != "200" {
			t.Errorf("status %s", got)
		}
		if h := <-headers; h.Get("Range") != "bytes=0-0,1-1" || h.Get("Accept-Encoding") != "br, zstd" {
			t.Errorf("the far side got %v", h)
		}
	})
	t.Run("B27 a coded body passes as it is", func(t *testing.T) {
		const body = "\x1f\x8b\x08not really gzip"
		r := c.agentInput(t, body, "curl", "-sS", "--cacert", c.daemon.CAFile, "-H", "Content-Encoding: gzip", "--data-binary", "@-", "https://ok.test.example/coded")
		if !strings.HasSuffix(r.stdout, body) {
			t.Errorf("came back as %q", r.stdout)
		}
		if h := <-headers; h.Get("Content-Encoding") != "gzip" {
			t.Errorf("the far side got %v", h)
		}
	})
	t.Run("B17 HTTP/1.0 with Host", func(t *testing.T) {
		answer := exchange(t, c.tls(t, "ok.test.example"), "GET /old HTTP/1.0\r\n"+okHost+"\r\n")
		response, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Errorf("answered %q", answer)
		}
	})
}
