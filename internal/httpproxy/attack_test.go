package httpproxy_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/ca"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/httpproxy"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/deny"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

// The sub-tests are named after the catalogue of attacks; each asserts at the
// sink that nothing arrived.

// helloFor records the ClientHello that crypto/tls sends for a name.
func helloFor(t *testing.T, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() { _ = tls.Client(a, cfg).Handshake() }()
	buf := make([]byte, 8<<10)
	_ = b.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// rename replaces the server name in a recorded hello by one of the same length.
func rename(hello []byte, from, to string) []byte {
	return []byte(strings.Replace(string(hello), from, to, 1))
}

func TestHelloDecides(t *testing.T) {
	plain := func(name string) *tls.Config { return &tls.Config{ServerName: name, InsecureSkipVerify: true} }
	name := "aaaaaaaaaaaaaaaa.example"
	tests := map[string]struct {
		bytes  func(t *testing.T) []byte
		reason policy.Reason
	}{
		"A1 no SNI":            {func(t *testing.T) []byte { return helloFor(t, plain("")) }, policy.NoSNI},
		"A2 NUL in the name":   {func(t *testing.T) []byte { return rename(helloFor(t, plain(name)), name, "evil.te\x00"+name[8:]) }, policy.Malformed},
		"A2 space in the name": {func(t *testing.T) []byte { return rename(helloFor(t, plain(name)), name, "ok.test. "+name[9:]) }, policy.Malformed},
		"A2 underscore":        {func(t *testing.T) []byte { return rename(helloFor(t, plain(name)), name, "aaaa_aaaaaaaaaaa.example") }, policy.Malformed},
		"A2 trailing dot": {func(t *testing.T) []byte {
			return rename(helloFor(t, plain("ok.test.example1")), "ok.test.example1", "ok.test.example.")
		}, policy.Malformed},
		"A2 IP literal": {func(t *testing.T) []byte {
			return rename(helloFor(t, plain("abc.example.tests")), "abc.example.tests", "000000000010.1.1.1")
		}, policy.Malformed},
		"A2 IP literal as it is": {func(t *testing.T) []byte { return rename(helloFor(t, plain("a.example")), "a.example", "127.0.0.1") }, policy.Malformed},
		"A2 UTF-8": {func(t *testing.T) []byte {
			return rename(helloFor(t, plain("aaa.example")), "aaa.example", "a\xc3\xa9.example")
		}, policy.Malformed},
		"A10 cleartext HTTP":        {func(*testing.T) []byte { return []byte("GET / HTTP/1.1\r\nHost: " + ok + "\r\n\r\n") }, policy.Cleartext},
		"A15 SSH instead of TLS":    {func(*testing.T) []byte { return []byte("SSH-2.0-x\r\n") }, policy.NotTLS},
		"A13 SSLv2":                 {func(*testing.T) []byte { return []byte("\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80") }, policy.NotTLS},
		"A2 record of another type": {func(t *testing.T) []byte { b := helloFor(t, plain(ok)); b[5] = 2; return b }, policy.Malformed},
	}
	for id, test := range tests {
		t.Run(id, func(t *testing.T) {
			w := build(t, nil)
			c, err := net.Dial("tcp", w.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = c.Write(test.bytes(t))
			answer, err := io.ReadAll(c)
			if err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection was not ended: %v", err)
			}
			tlsClient := test.reason != policy.NotTLS && test.reason != policy.Cleartext
			if isAlert := len(answer) == 7 && answer[0] == 21; isAlert != tlsClient || len(answer) > 7 {
				t.Errorf("answered %q, want an alert to TLS clients and nothing to others", answer)
			}
			w.wantDenied(test.reason)
			w.wantNothing()
		})
	}
	t.Run("A1 nothing within the time", func(t *testing.T) {
		w := build(t, nil, func(c *httpConfig, _ *sink) { c.Limits.Handshake = 50 * time.Millisecond })
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write(helloFor(t, plain(ok))[:100])
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.ReadAll(c)
		w.wantDenied(policy.TLSHandshake)
		w.wantNothing()
	})
	t.Run("A2 upper case is the same name", func(t *testing.T) {
		w := build(t, nil)
		if res, _ := w.send(strings.ToUpper(ok), "GET / HTTP/1.1\r\nHost: OK.Test.Example:443\r\n\r\n"); res.StatusCode != 200 {
			t.Errorf("status %d", res.StatusCode)
		}
	})
}

func TestA10HelloInPiecesIsReadTheSame(t *testing.T) {
	w := build(t, nil)
	raw, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(&oneByteRecords{Conn: raw}, &tls.Config{ServerName: ok, RootCAs: w.trust})
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", ok)
	if res, _ := readResponse(t, bufio.NewReader(c), "GET"); res.StatusCode != 200 {
		t.Errorf("status %d", res.StatusCode)
	}
}

// oneByteRecords cuts the first record written, the ClientHello, into records
// and segments of one byte.
type oneByteRecords struct {
	net.Conn
	done bool
}

func (c *oneByteRecords) Write(p []byte) (int, error) {
	if c.done {
		return c.Conn.Write(p)
	}
	c.done = true
	for _, b := range p[5:] {
		if _, err := c.Conn.Write([]byte{22, 3, 1, 0, 1, b}); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func TestDeniedNames(t *testing.T) {
	t.Run("explained", func(t *testing.T) {
		w := build(t, nil)
		res, body := w.send(denied, "GET /x HTTP/1.1\r\nHost: "+denied+"\r\n\r\n")
		if res.StatusCode != 403 || res.Header.Get(deny.Header) != "no-rule" || !strings.Contains(body, "rootcell allow "+denied) {
			t.Errorf("%d %v %q", res.StatusCode, res.Header, body)
		}
		if e := w.wantDenied(policy.NoRule); e.Path != "/x" || e.Host != denied {
			t.Errorf("event %+v", e)
		}
		w.wantNothing()
	})
	t.Run("explained over HTTP/2 as JSON", func(t *testing.T) {
		w := build(t, nil)
		res, err := w.client2().Do(request(t, "GET", "https://"+denied+"/x", "Accept", "application/json"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != 403 || res.Header.Get(deny.Header) != "no-rule" || !strings.Contains(string(body), `"command":"rootcell allow `+denied) {
			t.Errorf("%d %v %q", res.StatusCode, res.Header, body)
		}
		w.wantNothing()
	})
	t.Run("A4 the Host of an allowed name does not help", func(t *testing.T) {
		w := build(t, nil)
		if res, _ := w.send(denied, "GET / HTTP/1.1\r\nHost: "+ok+"\r\n\r\n"); res.StatusCode != 403 {
			t.Errorf("status %d", res.StatusCode)
		}
		w.wantDenied(policy.NoRule)
		w.wantNothing()
	})
	t.Run("reset", func(t *testing.T) {
		mint := &countingMinter{}
		w := build(t, nil, func(c *httpConfig, _ *sink) { c.DenyStyle, c.DenialLeaves = httpproxy.Reset, mint })
		if _, err := w.tryOpen(denied); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("err %v, want a reset", err)
		}
		w.wantDenied(policy.NoRule)
		w.wantNothing()
		if mint.n > 0 {
			t.Error("a leaf was minted")
		}
	})
	t.Run("K4 a flood is reset without minting", func(t *testing.T) {
		w := build(t, nil, func(c *httpConfig, _ *sink) { c.Limits.DenialLeavesPerSecond = 1 })
		resets := 0
		for i := range 20 {
			if _, err := w.tryOpen(fmt.Sprintf("x%d.%s", i, denied)); err != nil {
				resets++
			}
		}
		if resets < 15 {
			t.Errorf("%d of 20 were reset", resets)
		}
		w.wantNothing()
	})
}

type countingMinter struct{ n int }

func (m *countingMinter) LeafFor(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	m.n++
	return nil, errors.New("no leaf")
}

// wsHandshake is a valid WebSocket opening handshake without its request line and Host.
const wsHandshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

func TestRequestsThatMustNotArrive(t *testing.T) {
	host := "Host: " + ok + "\r\n"
	tests := map[string]struct {
		name, bytes string
		status      int
		reason      policy.Reason
	}{
		"A3 domain fronting":              {ok, "GET / HTTP/1.1\r\nHost: " + denied + "\r\n\r\n", 403, policy.SNIHostMismatch},
		"A3 another allowed name":         {ok, "GET / HTTP/1.1\r\nHost: " + other + "\r\n\r\n", 403, policy.SNIHostMismatch},
		"A15 no HTTP":                     {ok, "SSH-2.0-OpenSSH_9.2\r\n\r\n", 400, policy.NotHTTP},
		"A15 no HTTP and no line end":     {ok, "\x00\x01\x02\x03 ", 400, policy.NotHTTP},
		"B1 two Host fields":              {ok, "GET / HTTP/1.1\r\n" + host + host + "\r\n", 400, policy.Malformed},
		"B1 Host list":                    {ok, "GET / HTTP/1.1\r\nHost: " + ok + ", " + denied + "\r\n\r\n", 400, policy.Malformed},
		"B1 folded Host":                  {ok, "GET / HTTP/1.1\r\nX: y\r\n Host: " + denied + "\r\n" + host + "\r\n", 400, policy.Malformed},
		"B1 space before the colon":       {ok, "GET / HTTP/1.1\r\nHost : " + denied + "\r\n" + host + "\r\n", 400, policy.Malformed},
		"B2 absolute form, other host":    {ok, "GET https://" + denied + "/ HTTP/1.1\r\n" + host + "\r\n", 400, policy.Malformed},
		"B2 absolute form, http":          {ok, "GET http://" + ok + "/ HTTP/1.1\r\n" + host + "\r\n", 400, policy.Malformed},
		"B3 port 22":                      {ok, "GET / HTTP/1.1\r\nHost: " + ok + ":22\r\n\r\n", 403, policy.Port},
		"B3 userinfo":                     {ok, "GET / HTTP/1.1\r\nHost: " + ok + "@" + denied + "\r\n\r\n", 400, policy.Malformed},
		"B3 fragment in the authority":    {ok, "GET / HTTP/1.1\r\nHost: " + denied + "#." + ok + "\r\n\r\n", 400, policy.Malformed},
		"B3 zone":                         {ok, "GET / HTTP/1.1\r\nHost: [::1%25eth0]\r\n\r\n", 400, policy.Malformed},
		"B4 CL.TE":                        {ok, "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, policy.Malformed},
		"B4 CL.CL":                        {ok, "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", 400, policy.Malformed},
		"B4 signed length":                {ok, "POST / HTTP/1.1\r\n" + host + "Content-Length: +4\r\n\r\nabcd", 400, policy.Malformed},
		"B4 hexadecimal length":           {ok, "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x4\r\n\r\nabcd", 400, policy.Malformed},
		"B4 list of lengths":              {ok, "POST / HTTP/1.1\r\n" + host + "Content-Length: 4, 4\r\n\r\nabcd", 400, policy.Malformed},
		"B5 chunkedx":                     {ok, "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", 400, policy.Malformed},
		"B5 chunked, identity":            {ok, "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, policy.Malformed},
		"B5 vertical tab":                 {ok, "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\vchunked\r\n\r\n0\r\n\r\n", 400, policy.Malformed},
		"B6 bare line feed":               {ok, "GET / HTTP/1.1\n" + host + "\r\n", 400, policy.Malformed},
		"B6 NUL in a field":               {ok, "GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", 400, policy.Malformed},
		"B6 bare carriage return":         {ok, "GET / HTTP/1.1\r\n" + host + "X: a\rb\r\n\r\n", 400, policy.Malformed},
		"B11 h2c":                         {ok, "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", 403, policy.Tunnel},
		"B11 h2c without the settings":    {ok, "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 403, policy.Tunnel},
		"B12 HTTP/2 preface":              {ok, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, policy.Malformed},
		"B13 upgrade not announced":       {ok, "GET / HTTP/1.1\r\n" + host + strings.Replace(wsHandshake, "Connection: Upgrade", "Connection: keep-alive", 1) + "\r\n", 403, policy.Tunnel},
		"B13 WebSocket by POST":           {ok, "POST / HTTP/1.1\r\n" + host + wsHandshake + "\r\n", 403, policy.Tunnel},
		"B13 WebSocket and more":          {ok, "GET / HTTP/1.1\r\n" + host + strings.Replace(wsHandshake, "websocket", "websocket, raw", 1) + "\r\n", 403, policy.Tunnel},
		"B13 WebSocket without a key":     {ok, "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", 403, policy.Tunnel},
		"B14 CONNECT":                     {ok, "CONNECT " + ok + ":443 HTTP/1.1\r\n" + host + "\r\n", 403, policy.Tunnel},
		"B15 TRACE":                       {ok, "TRACE / HTTP/1.1\r\n" + host + "\r\n", 405, policy.Malformed},
		"B15 method with a tab":           {ok, "GET\t/ HTTP/1.1\r\n" + host + "\r\n", 400, policy.NotHTTP},
		"B15 lower-case method on a rule": {scoped, "get /public/ HTTP/1.1\r\nHost: " + scoped + "\r\n\r\n", 403, policy.PathRule},
		"B15 HEAD is not GET":             {scoped, "HEAD /public/ HTTP/1.1\r\nHost: " + scoped + "\r\n\r\n", 403, policy.PathRule},
		"B16 Connection names a field":    {ok, "GET / HTTP/1.1\r\n" + host + "Connection: close, Authorization\r\n\r\n", 400, policy.Malformed},
		"B17 HTTP/0.9":                    {ok, "GET /\r\n\r\n", 400, policy.NotHTTP},
		"B17 HTTP/1.0 without Host":       {ok, "GET / HTTP/1.0\r\n\r\n", 400, policy.Malformed},
		"B17 HTTP/1.2":                    {ok, "GET / HTTP/1.2\r\n" + host + "\r\n", 505, policy.Malformed},
		"B17 HTTP/3.0":                    {ok, "GET / HTTP/3.0\r\n" + host + "\r\n", 505, policy.Malformed},
		"B18 dot segments":                {scoped, "GET /public/../secret HTTP/1.1\r\nHost: " + scoped + "\r\n\r\n", 403, policy.AmbiguousPath},
		"B18 encoded dot segments":        {scoped, "GET /public/%2e%2e/secret HTTP/1.1\r\nHost: " + scoped + "\r\n\r\n", 403, policy.AmbiguousPath},
		"B19 path parameters":             {scoped, "GET /public/..;/secret HTTP/1.1\r\nHost: " + scoped + "\r\n\r\n", 403, policy.AmbiguousPath},
		"B20 encoded slash":               {scoped, "GET /public%2f..%2fsecret HTTP/1.1\r\nHost: " + scoped + "\r\n\r\n", 403, policy.AmbiguousPath},
		"B20 backslash":                   {scoped, "GET /public/..\\secret HTTP/1.1\r\nHost: " + scoped + "\r\n\r\n", 403, policy.AmbiguousPath},
		"B21 path in the query":           {scoped, "GET /secret?x=/public/ HTTP/1.1\r\nHost: " + scoped + "\r\n\r\n", 403, policy.PathRule},
		"B21 fragment":                    {scoped, "GET /secret#/public/ HTTP/1.1\r\nHost: " + scoped + "\r\n\r\n", 400, policy.Malformed},
		"B22 unanchored":                  {scoped, "GET /secret/public/ HTTP/1.1\r\nHost: " + scoped + "\r\n\r\n", 403, policy.PathRule},
		"B29 header of 1 MiB":             {ok, "GET / HTTP/1.1\r\n" + host + "X: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", 431, policy.Limit},
		"B29 10,000 fields":               {ok, "GET / HTTP/1.1\r\n" + host + strings.Repeat("X: a\r\n", 10_000) + "\r\n", 431, policy.Limit},
	}
	for id, test := range tests {
		t.Run(id, func(t *testing.T) {
			w := build(t, nil)
			res, body := w.send(test.name, test.bytes)
			if res.StatusCode != test.status || res.Header.Get(deny.Header) != string(test.reason) {
				t.Errorf("answered %d %q (%q), want %d %q", res.StatusCode, res.Header.Get(deny.Header), body, test.status, test.reason)
			}
			w.wantDenied(test.reason)
			w.wantNothing()
		})
	}
}

func TestA14ALPN(t *testing.T) {
	for _, alpn := range []string{"h3", "smtp", "acme-tls/1", "http/1.0"} {
		t.Run(alpn, func(t *testing.T) {
			w := build(t, nil)
			if _, err := w.tryOpen(ok, alpn); err == nil || !strings.Contains(err.Error(), "no application protocol") {
				t.Errorf("err %v", err)
			}
			w.wantDenied(policy.TLSHandshake)
			w.wantNothing()
		})
	}
	t.Run("HTTP/1.1 bytes after h2", func(t *testing.T) {
		w := build(t, nil)
		c := w.open(ok, "h2")
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", ok)
		answer, _ := io.ReadAll(c)
		if strings.Contains(string(answer), "HTTP/1.1 200") {
			t.Errorf("answered %q", answer)
		}
		w.wantNoRequest()
	})
}

func TestA13OldVersions(t *testing.T) {
	w := build(t, nil)
	raw, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{ServerName: ok, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err := c.Handshake(); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	w.wantDenied(policy.TLSHandshake)
	w.wantNothing()
}

func TestA18UpstreamCertificates(t *testing.T) {
	stranger, _ := authority(t)
	wrong, err := hostname.Parse("wrong.test.example")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(c *httpConfig, s *sink){
		"from an unknown authority": func(c *httpConfig, s *sink) { s.tls.GetCertificate = stranger.LeafFor },
		"for another name": func(c *httpConfig, s *sink) {
			mine := s.tls.GetCertificate
			s.tls.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
				h.ServerName = wrong.String()
				return mine(h)
			}
		},
		"expired": func(c *httpConfig, s *sink) {
			cert, key, err := ca.Create("old")
			if err != nil {
				t.Fatal(err)
			}
			old, err := ca.Load(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			ca.WithClock(func() time.Time { return time.Now().Add(-100 * time.Hour) })(old)
			c.Roots.AddCert(old.Certificate())
			s.tls.GetCertificate = old.LeafFor
		},
	}
	for id, change := range tests {
		t.Run(id, func(t *testing.T) {
			w := build(t, nil, change)
			res, _ := w.send(ok, "POST /secret HTTP/1.1\r\nHost: "+ok+"\r\nContent-Length: 6\r\n\r\nsecret")
			if res.StatusCode != 502 || res.Header.Get(deny.Header) != string(policy.UpstreamCert) {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
			res2, err := w.client2().Get("https://" + ok + "/secret")
			if err != nil {
				t.Fatal(err)
			}
			res2.Body.Close()
			if res2.StatusCode != 502 || res2.Header.Get(deny.Header) != string(policy.UpstreamCert) {
				t.Errorf("HTTP/2: %d %v", res2.StatusCode, res2.Header)
			}
			w.wantDenied(policy.UpstreamCert)
			w.wantNoRequest()
		})
	}
}

func TestA17ClientCertificates(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		w := build(t, nil, func(_ *httpConfig, s *sink) {
			s.tls.ClientAuth, s.tls.MaxVersion = tls.RequireAnyClientCert, version
		})
		for proto, c := range both12(w) {
			res, err := c.Get("https://" + ok + "/")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			// In TLS 1.3 the server's refusal arrives after the handshake, as an alert or as the end of the connection,
			// whichever is read first.
			reason := policy.Reason(res.Header.Get(deny.Header))
			if res.StatusCode != 502 || reason != policy.UpstreamProtocol && reason != policy.UpstreamUnreachable {
				t.Errorf("%s, %s: %d %v", tls.VersionName(version), proto, res.StatusCode, res.Header)
			}
		}
		w.wantNoRequest()
	}
}

func TestC2SpecialAddresses(t *testing.T) {
	w := build(t, nil)
	name, _ := hostname.Parse(ok)
	w.dialErr = &upstream.SpecialAddressError{Name: name, Addr: netip.MustParseAddr("169.254.169.254"), Class: "link-local"}
	for proto, c := range both12(w) {
		res, err := c.Get("https://" + ok + "/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 403 || res.Header.Get(deny.Header) != string(policy.SpecialAddress) {
			t.Errorf("%s: %d %v", proto, res.StatusCode, res.Header)
		}
	}
	w.wantDenied(policy.SpecialAddress)
	w.wantNoRequest()
}

func TestResetStyleSaysNothing(t *testing.T) {
	w := build(t, nil, func(c *httpConfig, _ *sink) { c.DenyStyle = httpproxy.Reset })
	for proto, c := range both12(w) {
		if res, err := c.Get("https://" + scoped + "/secret"); err == nil {
			t.Errorf("%s: answered %d", proto, res.StatusCode)
		}
		if res, _ := get(t, c, "https://"+scoped+"/public/"); res.StatusCode != 200 {
			t.Errorf("%s: an allowed request: %d", proto, res.StatusCode)
		}
	}
	w.wantDenied(policy.PathRule)
	for _, request := range w.sink.seen() {
		if strings.Contains(request, "/secret") {
			t.Errorf("the sink saw %q", request)
		}
	}
}
