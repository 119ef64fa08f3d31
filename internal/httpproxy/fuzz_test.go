package httpproxy_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
)

// FuzzPlane sends whatever an agent may send inside TLS to the whole HTTP/1.1 plane. What net/http makes of the bytes that
// arrive at the server must be a request that the policy allows, and that the log has byte for byte.
func FuzzPlane(f *testing.F) {
	const host = "\r\nHost: " + scoped + "\r\n"
	for _, s := range []string{
		"GET /public/a HTTP/1.1" + host + "\r\nGET /public/b HTTP/1.1" + host + "\r\n",
		"GET /public/a HTTP/1.1" + host + "\r\nGET /secret HTTP/1.1" + host + "\r\n",
		"GET /public/a HTTP/1.1" + host + "Content-Length: 4\r\n\r\nGET GET /secret HTTP/1.1" + host + "\r\n",
		"GET /public/a HTTP/1.1" + host + "Transfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n0\r\n\r\nGET /secret HTTP/1.1" + host + "\r\n",
		"GET /public/a HTTP/1.1" + host + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /secret HTTP/1.1" + host + "\r\n",
		"GET /public/%2e%2e/secret HTTP/1.1" + host + "\r\n",
		"GET https://" + scoped + "/public/a HTTP/1.1" + host + "\r\n",
		"GET /public/a HTTP/1.1\nHost: " + scoped + "\n\n",
		"GET /public/a HTTP/1.1\r\nHost: " + denied + host[2:] + "\r\n",
	} {
		f.Add(s)
	}
	w := build(f, nil)
	f.Fuzz(func(t *testing.T, input string) {
		w.sink.mu.Lock()
		w.sink.requests = nil
		w.sink.mu.Unlock()
		w.events.mu.Lock()
		w.events.events = nil
		w.events.mu.Unlock()
		raw, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		c := tls.Client(raw, &tls.Config{ServerName: scoped, RootCAs: w.trust, ClientSessionCache: planeSessions})
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(c, input)
		_ = c.CloseWrite()
		// The end of the connection is the end of all that it caused.
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Fatalf("%q: the connection stays open", input)
		}
		raw.Close() // what lingers for us is over, and recorded
		for _, request := range w.sink.seen() {
			method, rest, _ := strings.Cut(request, " ")
			authority, target, _ := strings.Cut(rest, " ")
			if method != http.MethodGet || !strings.HasPrefix(target, "/public/") || strings.Contains(target, "..") ||
				strings.TrimSuffix(strings.ToLower(authority), ":443") != scoped {
				t.Errorf("%q: the server got %q", input, request)
			}
			if !w.recorded(method, target) {
				t.Errorf("%q: %q is not in the log", input, request)
			}
		}
	})
}

var planeSessions = tls.NewLRUClientSessionCache(4)

// recorded waits a moment for the log: an answer is out before its line is.
func (w *world) recorded(method, target string) bool {
	deadline := time.Now().Add(2 * time.Second)
	for time.Now().Before(deadline) {
		w.events.mu.Lock()
		more := w.events.more
		found := slices.ContainsFunc(w.events.events, func(e audit.Event) bool {
			// A request whose head went out and whose body then broke the rules is recorded as denied.
			return e.Method == method && e.Path == target && e.Upstream != ""
		})
		w.events.mu.Unlock()
		if found {
			return true
		}
		select {
		case <-more:
		case <-time.After(50 * time.Millisecond):
		}
	}
	return false
}
