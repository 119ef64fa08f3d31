package httpproxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"
)

// openConns waits until the sink has n open connections.
func (s *sink) waitOpen(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(3 * time.Second)
	for {
		s.mu.Lock()
		open, changed := s.open, s.changed
		s.mu.Unlock()
		if open == n {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("the sink has %d open connections, want %d", open, n)
		}
	}
}

func TestC10NamesShareNoConnection(t *testing.T) {
	w := build(t, nil)
	for proto, c := range both12(w) {
		for range 2 {
			for _, name := range []string{ok, other} {
				if res, _ := get(t, c, "https://"+name+"/"); res.StatusCode != 200 {
					t.Errorf("%s: %d", proto, res.StatusCode)
				}
			}
		}
	}
	w.sink.mu.Lock()
	names := slices.Sorted(slices.Values(w.sink.names))
	w.sink.mu.Unlock()
	if want := []string{ok, ok, other, other}; !slices.Equal(names, want) {
		t.Errorf("connections for %q, want %q: one for each name and protocol", names, want)
	}
}

func TestH6PooledConnectionsFollowThePolicy(t *testing.T) {
	for proto := range both12(build(t, nil)) {
		t.Run(proto+" closes when the host is gone", func(t *testing.T) {
			w := build(t, nil)
			c := both12(w)[proto]
			get(t, c, "https://"+ok+"/")
			c.CloseIdleConnections() // so that the proxy's connection is in its pool
			w.sink.waitOpen(t, 1)
			w.gate.Swap(policyOf(t, other))
			w.sink.waitOpen(t, 0)
		})
		t.Run(proto+" is not used across generations", func(t *testing.T) {
			w := build(t, nil)
			c := both12(w)[proto]
			get(t, c, "https://"+ok+"/")
			w.gate.Swap(policyOf(t, rules...))
			get(t, c, "https://"+ok+"/")
			if n := len(w.dials()); n != 2 {
				t.Errorf("%d connections for two generations, want 2", n)
			}
		})
	}
}

func TestUpstreamConnectionsAreShared(t *testing.T) {
	for proto := range both12(build(t, nil)) {
		t.Run(proto, func(t *testing.T) {
			w := build(t, nil)
			for range 3 {
				c := both12(w)[proto]
				get(t, c, "https://"+ok+"/")
				closed := w.proxy.Conns()
				c.CloseIdleConnections()
				w.waitConns(closed - 1)
			}
			if n := len(w.dials()); n != 1 {
				t.Errorf("%d upstream connections for three clients one after the other, want 1", n)
			}
		})
	}
}

// waitConns waits until the proxy has n client connections.
func (w *world) waitConns(n int) {
	w.t.Helper()
	deadline := time.After(3 * time.Second)
	for w.proxy.Conns() != n {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			w.t.Fatalf("%d client connections, want %d", w.proxy.Conns(), n)
		}
	}
}

func TestUnsafeRequestsAreSentOnce(t *testing.T) {
	w := build(t, nil, func(_ *httpConfig, s *sink) {
		s.raw = func(c connection) {
			// Reads the request, and closes without an answer.
			buf := make([]byte, 4096)
			n, _ := c.Read(buf)
			s.saw(string(buf[:min(n, 4)]))
		}
	})
	res, _ := w.send(ok, "POST / HTTP/1.1\r\nHost: "+ok+"\r\nContent-Length: 2\r\n\r\nhi")
	if res.StatusCode != http.StatusBadGateway {
		t.Errorf("status %d", res.StatusCode)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	if seen := w.sink.seen(); !slices.Equal(seen, []string{"POST"}) {
		t.Errorf("the sink saw %q", seen)
	}
}

func TestOnlySafeRequestsAreRepeated(t *testing.T) {
	for method, want := range map[string]int{"POST": http.StatusBadGateway, "GET": http.StatusOK} {
		w := build(t, nil, func(_ *httpConfig, s *sink) {
			// Every connection answers its first request and closes on the second.
			s.raw = func(c connection) {
				br := bufio.NewReader(c)
				for i := range 2 {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					s.saw(req.Method)
					if i == 0 {
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
					}
				}
			}
		})
		c := w.open(ok)
		br := bufio.NewReader(c)
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", ok)
		readResponse(t, br, "GET")
		fmt.Fprintf(c, "%s / HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", method, ok)
		if res, _ := readResponse(t, br, method); res.StatusCode != want {
			t.Errorf("%s: status %d, want %d", method, res.StatusCode, want)
		}
		times := 0
		for _, m := range w.sink.seen()[1:] {
			if m == method {
				times++
			}
		}
		if repeated := times > 1; repeated != (method == "GET") {
			t.Errorf("%s was sent %d times", method, times)
		}
	}
}

// endSpy tells a bare end of the connection from the closing alert of TLS.
type endSpy struct {
	net.Conn
	bare bool
}

func (c *endSpy) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bare = c.bare || err != nil
	return n, err
}

func TestTheEndOfAnAnswerIsPassedOnAsItWas(t *testing.T) {
	for id, polite := range map[string]bool{"with a closing alert": true, "without": false} {
		t.Run(id, func(t *testing.T) {
			w := build(t, nil, func(_ *httpConfig, s *sink) {
				s.raw = func(c connection) {
					if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\npart")
					if polite {
						_ = c.CloseWrite()
					}
				}
			})
			raw, err := net.Dial("tcp", w.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			spy := &endSpy{Conn: raw}
			c := tls.Client(spy, &tls.Config{ServerName: ok, RootCAs: w.trust})
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", ok)
			if _, body := readResponse(t, bufio.NewReader(c), "GET"); body != "part" || spy.bare == polite {
				t.Errorf("body %q, bare end %v", body, spy.bare)
			}
		})
	}
}
