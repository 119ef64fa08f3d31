//lint:file-ignore SA1019 golang.org/x/net/http2 is mended apart from the toolchain and serves one connection without a listener

package httpproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/rootcell-ai/rootcell/internal/httpproxy/deny"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/pipeline"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

var (
	errNoH2    = errors.New("the server does not speak HTTP/2 any more")
	errRevoked = errors.New("the host is not allowed any more")
)

// goAwayGrace is how long a client may take to read the GOAWAY of a host that is
// not allowed any more.
const goAwayGrace = 200 * time.Millisecond

// serveH2 serves one HTTP/2 connection. golang.org/x/net/http2 holds the protocol:
// floods of resets, settings, pings and continuations end the connection, extended
// CONNECT is not offered, and what is malformed is a stream error that is counted here.
func (c *conn) serveH2(ctx context.Context, client *tls.Conn) {
	l := c.srv.limits
	server := &http.Server{
		MaxHeaderBytes: l.HeaderBytesH2,
		ErrorLog:       slog.NewLogLogger(c.srv.log.Handler(), slog.LevelDebug),
	}
	h2 := &http2.Server{
		MaxConcurrentStreams: uint32(l.Streams), IdleTimeout: l.Idle,
		ReadIdleTimeout: time.Minute, PingTimeout: 15 * time.Second,
		CountError: c.countH2Error,
	}
	if err := http2.ConfigureServer(server, h2); err != nil {
		c.srv.log.Error("configuring HTTP/2", "err", err)
		return
	}
	c.setOnRevoke(func() {
		_ = server.Shutdown(ctx) // sends GOAWAY; the streams are revoked by themselves
		time.AfterFunc(goAwayGrace, func() { _ = c.raw.Close() })
	})
	watched := &streamCounter{batchConn: newBatchConn(client, c.raw, l.Stall), skip: len(http2.ClientPreface)}
	h2.ServeConn(watched, &http2.ServeConnOpts{Context: ctx, BaseConfig: server, Handler: http.HandlerFunc(c.serveStream)})
	// Invariant: what the library refuses by itself is not lost silently (TestHTTP2Streams in internal/e2e, B10).
	if refused := watched.opened.Load() - c.requests.Load() - c.broken.Load(); refused > 0 {
		c.recordRefusal(deny.For(policy.Malformed, "streams with malformed heads"), c.name.String())
	}
}

// countH2Error records streams and connections that broke the protocol.
func (c *conn) countH2Error(kind string) {
	switch kind {
	case "conn_close_lost_ping", "read_frame_eof", "read_frame_conn_reset", "read_frame_unexpected_eof", "read_frame_other":
		return // connections that just end
	}
	c.broken.Add(1)
	c.recordRefusal(deny.For(policy.Malformed, kind), c.name.String())
}

// serveStream judges one stream and passes it on.
func (c *conn) serveStream(w http.ResponseWriter, r *http.Request) {
	c.requests.Add(1)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s := &stream{conn: c, w: w, out: outcome{began: time.Now(), method: r.Method, target: r.RequestURI}}
	x := &pipeline.Exchange{Name: c.name, OnRevoke: func(d policy.Decision) {
		s.revoked.Store(&d)
		cancel()
	}}
	defer x.Release()
	defer func() { c.record(s.out) }()
	if awaitsContinue(r) {
		r.Header["Expect"] = []string{"100-continue"}
	}
	if c.denial != nil {
		s.deny(r, c.denial, true)
		return
	}
	if err := c.srv.pipeline.Judge(r.WithContext(pipeline.With(ctx, x))); err != nil {
		var denial *deny.Error
		if !errors.As(err, &denial) {
			denial = deny.For(policy.BadPolicy, err.Error())
		}
		s.deny(r, denial, false)
		return
	}
	s.out.decision = x.Decision()
	s.forward(ctx, r)
}

// stream is one HTTP/2 request of the client.
type stream struct {
	conn    *conn
	w       http.ResponseWriter
	out     outcome
	revoked atomic.Pointer[policy.Decision]
}

func (s *stream) deny(r *http.Request, denial *deny.Error, last bool) {
	s.out.denial = denial
	if s.conn.srv.silent(denial) {
		panic(http.ErrAbortHandler) // RST_STREAM
	}
	s.out.status = denial.StatusCode()
	kind, body := denial.Body(s.conn.srv.cfg.Instance, deny.Request{
		Host: s.conn.name.String(), Method: r.Method, Target: r.RequestURI, Accept: r.Header.Get("Accept"),
	})
	h := s.w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Set(deny.Header, string(denial.Reason))
	if last {
		h.Set("Connection", "close") // net/http2 turns it into GOAWAY
	}
	s.w.WriteHeader(s.out.status)
	if r.Method != http.MethodHead {
		n, _ := s.w.Write(body)
		s.out.down = int64(n)
	}
	if r.ContentLength != 0 && !s.bodyEnds(r) {
		s.delayReset(r.Context())
	}
}

// bodyEnds reads a little of a body that nobody wants and reports whether that was all of it. A client that holds its body
// back must not be told to go on with it, as the first read would do.
func (s *stream) bodyEnds(r *http.Request) bool {
	if awaitsContinue(r) {
		return false
	}
	_ = http.NewResponseController(s.w).SetReadDeadline(time.Now().Add(resetDelay))
	_, err := io.CopyN(io.Discard, r.Body, streamBufferLen)
	return errors.Is(err, io.EOF)
}

// resetDelay is how far behind an answer the RST_STREAM stays that tells the client to
// send no more of its body: clients that read both at once report the reset instead of the
// answer (TestUpstreamCertificates in internal/e2e, with a body over HTTP/2).
const resetDelay = 10 * time.Millisecond

// delayReset sends what was written and waits a little before the stream ends.
func (s *stream) delayReset(ctx context.Context) {
	s.w.(http.Flusher).Flush()
	timer := time.NewTimer(resetDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// forward sends the stream upstream and its answer back, piece by piece.
func (s *stream) forward(ctx context.Context, r *http.Request) {
	body := &countedBody{ReadCloser: r.Body}
	res, err := s.roundTrip(ctx, r, body)
	s.out.up = body.n.Load()
	if err != nil {
		s.fail(r, err)
		return
	}
	defer res.Body.Close()
	s.out.status = res.StatusCode
	h := s.w.Header()
	for k, vv := range res.Header {
		h[k] = vv
	}
	delete(h, "Alt-Svc")
	// Present without a value: net/http2 must not add what the server did not say.
	for _, k := range []string{"Date", "Content-Type", "Content-Length"} {
		if _, ok := h[k]; !ok {
			h[k] = nil
		}
	}
	s.w.WriteHeader(res.StatusCode)
	err = s.copyBody(res)
	s.out.up = body.n.Load()
	if err != nil {
		s.out.denial = s.conn.revocation(s.revoked.Load())
		panic(http.ErrAbortHandler) // RST_STREAM: the client must see that it is cut short
	}
	for k, vv := range res.Trailer {
		h[http.TrailerPrefix+k] = vv
	}
	if r.ContentLength != 0 && !body.ended.Load() {
		s.delayReset(ctx)
	}
}

// fail answers a stream that got no response.
func (s *stream) fail(r *http.Request, err error) {
	s.out.denial = s.conn.revocation(s.revoked.Load())
	if s.out.denial != nil || r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // revoked, or the client is gone
	}
	var reset http2.StreamError
	if errors.As(err, &reset) {
		// The server refused this very stream; so the client sees it.
		s.out.status = http.StatusBadGateway
		panic(http.ErrAbortHandler)
	}
	denial := dialDenial(err)
	if errors.Is(err, errNoH2) {
		denial = deny.For(policy.UpstreamProtocol, err.Error()+"; the next connection will find out")
	}
	s.deny(r, denial, errors.Is(err, errNoH2))
}

// roundTrip sends the request as it was judged and returns the final response.
// A request that the server did not process is sent once more, on another connection.
func (s *stream) roundTrip(ctx context.Context, r *http.Request, body *countedBody) (*http.Response, error) {
	var interim interimWriter
	interim.w = s.w
	defer interim.stop()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: interim.write})
	out := (&http.Request{
		Method: r.Method, Host: r.Host, Header: r.Header, Trailer: r.Trailer,
		Body: body, ContentLength: r.ContentLength,
		// Invariant: the target goes out byte for byte as it was judged (TestH2Target):
		// net/http2 sends an Opaque of this form without parsing it.
		URL: &url.URL{Scheme: "https", Host: r.Host, Opaque: "//" + r.Host + r.RequestURI},
	}).WithContext(ctx)
	if r.RequestURI == "*" {
		out.URL = &url.URL{Scheme: "https", Host: r.Host, Path: "*"}
	}
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = nil // none of our own
	}
	for attempt := 0; ; attempt++ {
		up, err := s.conn.upstreamH2(ctx)
		if err != nil {
			return nil, err
		}
		s.out.upstream = up.up.address
		res, err := up.cc.RoundTrip(out)
		if err == nil {
			return res, nil
		}
		if attempt > 0 || ctx.Err() != nil || body.n.Load() > 0 || r.ContentLength != 0 && body.touched.Load() || !unprocessed(err, r.Method) {
			return nil, err
		}
	}
}

// upstreamH2 returns an HTTP/2 connection; the error of the connection that
// was tried to learn the protocol is given to the first request only.
func (c *conn) upstreamH2(ctx context.Context) (*h2Conn, error) {
	c.mu.Lock()
	err := c.earlyErr
	c.earlyErr = nil
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return c.srv.pool.multiplexed(ctx, c.name)
}

// unprocessed reports whether a failed request may be sent again.
func unprocessed(err error, method string) bool {
	var reset http2.StreamError
	if errors.As(err, &reset) {
		return reset.Code == http2.ErrCodeRefusedStream
	}
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}

// copyBody passes the body on, each piece as it arrives.
func (s *stream) copyBody(res *http.Response) error {
	out := lateFlusher{w: s.w, flush: s.w.(http.Flusher).Flush}
	defer out.stop()
	if res.ContentLength != 0 && s.out.method != http.MethodHead {
		// The head must not wait for the body. Where the server ended the stream
		// with its head (gRPC does, on errors), so do we.
		out.soon()
	}
	buf := streamBuffers.Get().(*[streamBufferLen]byte)
	defer streamBuffers.Put(buf)
	for {
		n, err := res.Body.Read(buf[:])
		if n > 0 {
			s.out.down += int64(n)
			// Behind the last byte of a known length comes nothing but the end of the stream, which
			// is most often here already and takes it along.
			if err := out.write(buf[:n], s.out.down == res.ContentLength); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

const streamBufferLen = 32 << 10

var streamBuffers = sync.Pool{New: func() any { return new([streamBufferLen]byte) }}

// countedBody counts what is read of a request body.
type countedBody struct {
	io.ReadCloser
	n       atomic.Int64
	touched atomic.Bool
	ended   atomic.Bool // was read to its end
}

func (b *countedBody) Read(p []byte) (int, error) {
	b.touched.Store(true)
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	}
	return n, err
}

// interimWriter passes 1xx responses on. They arrive on the goroutine of the
// upstream connection, and must not any more when the final one is under way.
type interimWriter struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	stopped bool // guarded by mu
}

func (i *interimWriter) write(code int, header textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped || code == http.StatusContinue {
		return nil // net/http2 sends 100 when the body is asked for, which the server's own 100 causes
	}
	h := i.w.Header()
	for k, vv := range header {
		h[k] = vv
	}
	delete(h, "Alt-Svc")
	i.w.WriteHeader(code)
	clear(h)
	return nil
}

func (i *interimWriter) stop() {
	i.mu.Lock()
	i.stopped = true
	i.mu.Unlock()
}
