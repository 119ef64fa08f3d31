package httpproxy_test

import (
	"io"
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
