package httpproxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// both runs a test with a client of each protocol.
func both(t *testing.T, handler http.HandlerFunc, test func(t *testing.T, w *world, c *http.Client)) {
	for name, client := range map[string]func(*world) *http.Client{"HTTP/1.1": (*world).client, "HTTP/2": (*world).client2} {
		t.Run(name, func(t *testing.T) {
			w := build(t, handler)
			test(t, w, client(w))
		})
	}
}

func TestTrailersReachTheClient(t *testing.T) {
	both(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-Declared")
		fmt.Fprint(w, "body")
		w.(http.Flusher).Flush()
		w.Header().Set("X-Declared", "a"+r.Trailer.Get("X-Up"))
		w.Header().Set(http.TrailerPrefix+"X-Surprise", "b")
	}, func(t *testing.T, w *world, c *http.Client) {
		req, _ := http.NewRequest("POST", "https://"+ok+"/", io.MultiReader(strings.NewReader("up")))
		req.Trailer = http.Header{"X-Up": {"c"}}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || string(body) != "body" || res.Trailer.Get("X-Declared") != "ac" || res.Trailer.Get("X-Surprise") != "b" {
			t.Errorf("body %q, trailer %v, err %v", body, res.Trailer, err)
		}
	})
}

func TestInterimResponsesReachTheClient(t *testing.T) {
	both(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	}, func(t *testing.T, w *world, c *http.Client) {
		var got []string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		}}
		req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "GET", "https://"+ok+"/", nil)
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if len(got) != 1 || got[0] != "103 </style.css>; rel=preload" || res.StatusCode != 200 {
			t.Errorf("interim %q, status %d", got, res.StatusCode)
		}
	})
}

func TestEventsAreNotHeldBack(t *testing.T) {
	next := make(chan struct{})
	both(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for i := range 3 {
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
		}
	}, func(t *testing.T, w *world, c *http.Client) {
		res, err := c.Get("https://" + ok + "/events")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		br := bufio.NewReader(res.Body)
		for i := range 3 {
			next <- struct{}{} // each event is made only when the one before was read
			line, err := br.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("event %d: %q, %v", i, line, err)
			}
			_, _ = br.ReadString('\n')
		}
	})
}

func TestBothDirectionsStreamAtOnce(t *testing.T) {
	both(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.(http.Flusher).Flush()
		br := bufio.NewReader(r.Body)
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(w, "echo ", line)
			w.(http.Flusher).Flush()
		}
	}, func(t *testing.T, w *world, c *http.Client) {
		pr, pw := io.Pipe()
		req, _ := http.NewRequest("POST", "https://"+ok+"/bidi", pr)
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		br := bufio.NewReader(res.Body)
		for i := range 5 {
			fmt.Fprintf(pw, "%d\n", i)
			if line, err := br.ReadString('\n'); err != nil || line != fmt.Sprintf("echo %d\n", i) {
				t.Fatalf("%q, %v", line, err)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
	})
}

func TestCancellingReachesTheServer(t *testing.T) {
	arrived, left := make(chan struct{}, 1), make(chan struct{}, 1)
	both(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	}, func(t *testing.T, w *world, c *http.Client) {
		ctx, cancel := context.WithCancel(context.Background())
		req, _ := http.NewRequestWithContext(ctx, "GET", "https://"+ok+"/think", nil)
		go func() {
			<-arrived
			cancel()
		}()
		if _, err := c.Do(req); !errors.Is(err, context.Canceled) {
			t.Errorf("err %v", err)
		}
		select {
		case <-left:
		case <-time.After(3 * time.Second):
			t.Error("the server did not notice that the client left")
		}
	})
}

func TestLargeBodiesArriveWholeInLittleMemory(t *testing.T) {
	const size = 64 << 20
	both(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if n != size || err != nil {
			w.WriteHeader(500)
			return
		}
		block := make([]byte, 1<<20)
		for range size / len(block) {
			_, _ = w.Write(block)
		}
	}, func(t *testing.T, w *world, c *http.Client) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		res, err := c.Post("https://"+ok+"/", "", io.LimitReader(zeroes{}, size))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		n, err := io.Copy(io.Discard, res.Body)
		runtime.ReadMemStats(&after)
		if n != size || err != nil || res.StatusCode != 200 {
			t.Errorf("%d: %d bytes, %v", res.StatusCode, n, err)
		}
		if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 32<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	})
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestTruncatedBodiesAreSeenAsTruncated(t *testing.T) {
	both(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", "100")
		}
		fmt.Fprint(w, "part")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}, func(t *testing.T, w *world, c *http.Client) {
		for _, path := range []string{"/length", "/chunked"} {
			res, err := c.Get("https://" + ok + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err == nil || string(body) != "part" {
				t.Errorf("%s: %q, %v; want an error", path, body, err)
			}
			res.Body.Close()
		}
	})
}

func TestStatusesWithoutBody(t *testing.T) {
	both(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.WriteHeader(304)
		default:
			w.Header().Set("Content-Length", "12345")
		}
	}, func(t *testing.T, w *world, c *http.Client) {
		for range 2 {
			for _, path := range []string{"/204", "/304"} {
				if res, body := get(t, c, "https://"+ok+path); fmt.Sprintf("/%d", res.StatusCode) != path || body != "" {
					t.Errorf("%s: %d %q", path, res.StatusCode, body)
				}
			}
			res, err := c.Head("https://" + ok + "/head")
			if err != nil || res.ContentLength != 12345 {
				t.Fatalf("HEAD: %v, %v", res, err)
			}
		}
	})
}

func TestContinueIsTheServersToSay(t *testing.T) {
	t.Run("HTTP/1.1 continued", func(t *testing.T) {
		w := build(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Write(b)
		}))
		c := w.open(ok)
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", ok)
		br := bufio.NewReader(c)
		if line, err := br.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q %v", line, err)
		}
		br.ReadString('\n')
		io.WriteString(c, "hi")
		if res, body := readResponse(t, br, "POST"); res.StatusCode != 200 || body != "hi" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
	})
	t.Run("HTTP/1.1 refused", func(t *testing.T) {
		w := build(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(417) }))
		c := w.open(ok)
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", ok)
		if res, _ := readResponse(t, bufio.NewReader(c), "POST"); res.StatusCode != 417 {
			t.Errorf("status %d", res.StatusCode)
		}
	})
	for path, want := range map[string]struct {
		status    int
		continued bool
	}{"/continue": {200, true}, "/refuse": {417, false}} {
		t.Run("HTTP/2 "+path, func(t *testing.T) {
			w := build(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/refuse" {
					w.WriteHeader(417)
					return
				}
				io.Copy(w, r.Body)
			}))
			var continued atomic.Bool
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { continued.Store(true) }})
			c := w.client()
			transport := c.Transport.(*http.Transport)
			transport.ForceAttemptHTTP2, transport.ExpectContinueTimeout = true, 10*time.Second
			body := &countingReader{Reader: strings.NewReader("hi")}
			req, _ := http.NewRequestWithContext(ctx, "POST", "https://"+ok+path, body)
			req.ContentLength = 2
			req.Header.Set("Expect", "100-continue")
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.ProtoMajor != 2 || res.StatusCode != want.status || continued.Load() != want.continued || (body.n.Load() > 0) != want.continued {
				t.Errorf("%s: status %d, continued %v, %d bytes sent", res.Proto, res.StatusCode, continued.Load(), body.n.Load())
			}
		})
	}
}

type countingReader struct {
	io.Reader
	n atomic.Int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}

func TestEarlyAnswerReachesAnUploadingClient(t *testing.T) {
	both(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
	}, func(t *testing.T, w *world, c *http.Client) {
		req, _ := http.NewRequest("POST", "https://"+ok+"/", io.LimitReader(zeroes{}, 8<<20))
		req.ContentLength = 8 << 20
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 413 {
			t.Errorf("status %d, want 413", res.StatusCode)
		}
	})
}

func TestWebSocket(t *testing.T) {
	w := build(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil {
				return
			}
			_ = c.Write(r.Context(), kind, bytes.ToUpper(data))
		}
	}))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "wss://"+ok+"/ws", &websocket.DialOptions{HTTPClient: w.client()})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"hello", strings.Repeat("x", 30_000)} {
		if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(ctx); err != nil || string(got) != strings.ToUpper(text) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("closing: %v", err)
	}
	if e := w.wantAllowed("/ws"); e.Status != 101 || !e.Opaque || e.BytesUp < 30_000 {
		t.Errorf("event %+v", e)
	}
}

func TestSessionsAreResumed(t *testing.T) {
	w := build(t, nil)
	cache := tls.NewLRUClientSessionCache(8)
	open := func(name string) bool {
		raw, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		// Unverified, because a client that verifies would not try the other name.
		c := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true, ClientSessionCache: oneSession{cache}})
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name)
		readResponse(t, bufio.NewReader(c), "GET")
		return c.ConnectionState().DidResume
	}
	if open(ok) {
		t.Error("the first connection was resumed")
	}
	if !open(ok) {
		t.Error("the second connection was not resumed")
	}
	if open(other) {
		t.Error("A9: a ticket of one name was accepted for another")
	}
}

// oneSession gives the same ticket to every server, as an attacker would.
type oneSession struct{ tls.ClientSessionCache }

func (c oneSession) Get(string) (*tls.ClientSessionState, bool) {
	return c.ClientSessionCache.Get("any")
}
func (c oneSession) Put(_ string, s *tls.ClientSessionState) { c.ClientSessionCache.Put("any", s) }
