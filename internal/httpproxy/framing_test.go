package httpproxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/deny"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

func TestB8EachPipelinedRequestIsJudged(t *testing.T) {
	w := build(t, nil)
	c := w.open(scoped)
	fmt.Fprintf(c, "GET /public/a HTTP/1.1\r\nHost: %[1]s\r\n\r\nDELETE /secret HTTP/1.1\r\nHost: %[1]s\r\n\r\nGET /public/b HTTP/1.1\r\nHost: %[1]s\r\n\r\n", scoped)
	br := bufio.NewReader(c)
	var got []int
	for range 3 {
		res, _ := readResponse(t, br, "GET")
		got = append(got, res.StatusCode)
	}
	if want := []int{200, 403, 200}; !slices.Equal(got, want) {
		t.Errorf("statuses %v, want %v", got, want)
	}
	if seen, want := w.sink.seen(), []string{"GET " + scoped + " /public/a", "GET " + scoped + " /public/b"}; !slices.Equal(seen, want) {
		t.Errorf("the sink saw %q, want %q", seen, want)
	}
	w.wantDenied(policy.PathRule)
}

func TestB9EachRequestOnAKeptConnectionIsJudged(t *testing.T) {
	w := build(t, nil)
	c := w.open(ok)
	br := bufio.NewReader(c)
	for i, host := range []string{ok, other, ok} {
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: %s\r\n\r\n", i, host)
		if res, _ := readResponse(t, br, "GET"); (res.StatusCode == 200) != (host == ok) {
			t.Errorf("Host %s: %d", host, res.StatusCode)
		}
	}
	if n := len(w.sink.seen()); n != 2 {
		t.Errorf("the sink saw %q", w.sink.seen())
	}
}

func TestB6BrokenRequestBodiesAreNotCompleted(t *testing.T) {
	bodies := map[string]string{
		"bare line feed after the size": "3\nabc\r\n0\r\n\r\n",
		"bare line feed after the data": "3\r\nabc\n0\r\n\r\n",
		"size with a prefix":            "0x3\r\nabc\r\n0\r\n\r\n",
		"negative size":                 "-3\r\nabc\r\n0\r\n\r\n",
		"size over 64 bits":             "10000000000000003\r\nabc\r\n0\r\n\r\n",
		"chunk longer than its size":    "2\r\nabc\r\n0\r\n\r\n",
		"line feed in an extension":     "3;a\nb\r\nabc\r\n0\r\n\r\n",
		"Host in the trailer":           "0\r\nHost: " + denied + "\r\n\r\n",
		"folded trailer":                "0\r\nX: a\r\n b\r\n\r\n",
	}
	for id, body := range bodies {
		t.Run(id, func(t *testing.T) {
			completed := make(chan bool, 1)
			w := build(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				completed <- err == nil
			}))
			res, _ := w.send(ok, "POST / HTTP/1.1\r\nHost: "+ok+"\r\nTransfer-Encoding: chunked\r\n\r\n"+body)
			if res.StatusCode != 400 || res.Header.Get(deny.Header) != string(policy.Malformed) {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
			w.wantDenied(policy.Malformed)
			select {
			case whole := <-completed:
				if whole {
					t.Error("the server took the body for whole")
				}
			case <-time.After(5 * time.Second):
				t.Error("the server still waits")
			}
		})
	}
}

func TestB7AfterAnEarlyAnswerNothingIsReused(t *testing.T) {
	w := build(t, nil, func(_ *httpConfig, s *sink) {
		s.raw = func(c connection) {
			br := bufio.NewReader(c)
			if _, err := http.ReadRequest(br); err != nil {
				return
			}
			s.saw("head")
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
			// A server that ignores the body takes what follows for a request.
			if rest, _ := io.ReadAll(br); len(rest) > 0 {
				s.saw("smuggled " + string(rest))
			}
			s.saw("end")
		}
	})
	c := w.open(ok)
	fmt.Fprintf(c, "POST /ignores HTTP/1.1\r\nHost: %s\r\nContent-Length: 200\r\nExpect: 100-continue\r\n\r\n", ok)
	br := bufio.NewReader(c)
	if res, _ := readResponse(t, br, "POST"); res.StatusCode != 200 {
		t.Fatalf("status %d", res.StatusCode)
	}
	fmt.Fprintf(c, "GET /next HTTP/1.1\r\nHost: %s\r\n\r\n", ok)
	if rest, err := io.ReadAll(br); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a second answer %q, %v", rest, err)
	}
	w.sink.waitOpen(t, 0)
	if seen := w.sink.seen(); !slices.Equal(seen, []string{"head", "end"}) {
		t.Errorf("the sink saw %q", seen)
	}
}

// answering returns a sink that answers every request with fixed bytes.
func answering(bytes string) option {
	return func(_ *httpConfig, s *sink) {
		s.raw = func(c connection) {
			br := bufio.NewReader(c)
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				s.saw("request")
				io.WriteString(c, bytes)
			}
		}
	}
}

func TestServersThatMisbehave(t *testing.T) {
	tests := map[string]struct {
		request, answer string
	}{
		"B13 101 to no handshake":        {"", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"},
		"B13 101 with a false accept":    {wsHandshake, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"},
		"B13 101 to another protocol":    {wsHandshake, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"},
		"both framings":                  {"", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"two lengths":                    {"", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"},
		"bare line feeds":                {"", "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi"},
		"no HTTP":                        {"", "SSH-2.0-OpenSSH\r\n\r\n"},
		"header without end (too large)": {"", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 300<<10) + "\r\n\r\n"},
	}
	for id, test := range tests {
		t.Run(id, func(t *testing.T) {
			w := build(t, nil, answering(test.answer))
			res, _ := w.send(ok, "GET / HTTP/1.1\r\nHost: "+ok+"\r\n"+test.request+"\r\n")
			if res.StatusCode != 502 || res.Header.Get(deny.Header) != string(policy.UpstreamProtocol) {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
			w.wantDenied(policy.UpstreamProtocol)
		})
	}
	t.Run("bytes behind an answer are no second answer", func(t *testing.T) {
		w := build(t, nil, answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))
		for range 3 {
			if _, body := w.send(ok, "GET / HTTP/1.1\r\nHost: "+ok+"\r\n\r\n"); body != "hi" {
				t.Fatalf("body %q", body)
			}
		}
	})
}

func TestB25AltSvcIsTakenOut(t *testing.T) {
	both(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Alt-Svc", `h3=":443"; ma=86400`)
		w.Header().Set("X-Kept", "1")
	}, func(t *testing.T, w *world, c *http.Client) {
		res, _ := get(t, c, "https://"+ok+"/")
		if res.Header.Get("Alt-Svc") != "" || res.Header.Get("X-Kept") != "1" {
			t.Errorf("header %v", res.Header)
		}
	})
}

func TestK3SlowClientsAreCutOff(t *testing.T) {
	w := build(t, nil, func(c *httpConfig, _ *sink) { c.Limits.Header = 50 * time.Millisecond })
	c := w.open(ok)
	io.WriteString(c, "GET / HTTP/1.1\r\n")
	if res, _ := readResponse(t, bufio.NewReader(c), "GET"); res.StatusCode != 408 {
		t.Errorf("status %d", res.StatusCode)
	}
	w.wantDenied(policy.Limit)
	w.wantNothing()
}

func TestK3ConnectionsAreLimited(t *testing.T) {
	w := build(t, nil, func(c *httpConfig, _ *sink) { c.Limits.Conns = 1 })
	w.open(ok)
	if _, err := w.tryOpen(ok); err == nil {
		t.Error("a second connection was accepted")
	}
	w.wantDenied(policy.Limit)
}

func TestH6RevocationReachesWhatIsOpen(t *testing.T) {
	arrived := make(chan struct{}, 8)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/quick" || r.URL.Path == "/public/quick" {
			return
		}
		fmt.Fprint(w, "begun")
		w.(http.Flusher).Flush()
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	within := func(t *testing.T, what string, f func() error) {
		t.Helper()
		began := time.Now()
		if err := f(); err == nil {
			t.Errorf("%s ended well", what)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("%s took %v to end", what, d)
		}
	}
	t.Run("idle kept-alive connection", func(t *testing.T) {
		w := build(t, handler)
		c := w.open(ok)
		fmt.Fprintf(c, "GET /quick HTTP/1.1\r\nHost: %s\r\n\r\n", ok)
		br := bufio.NewReader(c)
		readResponse(t, br, "GET")
		w.gate.Swap(policyOf(t, other))
		within(t, "the connection", func() error { _, err := br.ReadByte(); return err })
		w.wantDenied(policy.Revoked)
	})
	for proto := range both12(build(t, handler)) {
		t.Run("stream over "+proto, func(t *testing.T) {
			w := build(t, handler)
			res, err := both12(w)[proto].Get("https://" + ok + "/stream")
			if err != nil {
				t.Fatal(err)
			}
			<-arrived
			w.gate.Swap(policyOf(t, other))
			within(t, "the stream", func() error { _, err := io.ReadAll(res.Body); return err })
			w.events.wait(t, "revoked stream", func(e audit.Event) bool {
				return e.Reason == string(policy.Revoked) && e.Path == "/stream"
			})
		})
		t.Run("only what is not allowed any more over "+proto, func(t *testing.T) {
			w := build(t, handler)
			w.gate.Swap(policyOf(t, scoped))
			c := both12(w)[proto]
			res, err := c.Get("https://" + scoped + "/private")
			if err != nil {
				t.Fatal(err)
			}
			<-arrived
			kept, err := c.Get("https://" + scoped + "/public/stream")
			if err != nil {
				t.Fatal(err)
			}
			<-arrived
			w.gate.Swap(policyOf(t, scoped+" GET /public/"))
			within(t, "the stream", func() error { _, err := io.ReadAll(res.Body); return err })
			if res, err := c.Get("https://" + scoped + "/public/quick"); err != nil || res.StatusCode != 200 {
				t.Errorf("a request that is still allowed: %v %v", res, err)
			}
			five := make([]byte, 5)
			if _, err := io.ReadFull(kept.Body, five); err != nil || string(five) != "begun" {
				t.Errorf("the other stream: %q %v", five, err)
			}
			kept.Body.Close()
		})
	}
	t.Run("missing policy", func(t *testing.T) {
		w := build(t, handler)
		w.gate.Swap(nil)
		if res, _ := w.send(ok, "GET / HTTP/1.1\r\nHost: "+ok+"\r\n\r\n"); res.Header.Get(deny.Header) != string(policy.BadPolicy) {
			t.Errorf("header %v", res.Header)
		}
		w.wantNothing()
	})
}

func TestJ1TargetsCannotForgeLines(t *testing.T) {
	w := build(t, nil)
	w.send(ok, "GET /%0a2026%20ALLOW\x1b[2J HTTP/1.1\r\nHost: "+ok+"\r\n\r\n")
	e := w.wantDenied(policy.Malformed)
	if line := string(e.AppendJSON(nil)); strings.ContainsAny(line, "\x1b\n") {
		t.Errorf("line %q", line)
	}
}

func TestKeptConnectionsThatDiedAreReplaced(t *testing.T) {
	w := build(t, nil, func(_ *httpConfig, s *sink) {
		s.raw = func(c connection) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
			}
		}
	})
	c := w.open(ok)
	br := bufio.NewReader(c)
	for i := range 3 {
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: %s\r\n\r\n", i, ok)
		if res, body := readResponse(t, br, "GET"); res.StatusCode != 200 || body != "hi" {
			t.Errorf("%d: %d %q", i, res.StatusCode, body)
		}
	}
}

func TestUnreachableServers(t *testing.T) {
	w := build(t, nil)
	w.dialErr = errors.New("nobody there")
	for proto, c := range both12(w) {
		res, err := c.Get("https://" + ok + "/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 502 || res.Header.Get(deny.Header) != string(policy.UpstreamUnreachable) {
			t.Errorf("%s: %d %v", proto, res.StatusCode, res.Header)
		}
	}
}
