package httpproxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rootcell-ai/rootcell/internal/httpproxy/deny"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/http1"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// session is an HTTP/1.1 connection of the client: requests one after the other.
//
// The client's side is read by one goroutine at a time: the session's own while a
// head is read, and the reader's of the exchange while a body is passed on or
// the answer keeps being awaited. The reader ends with the first byte of the next request,
// or with the end of the connection, which ends an exchange under way.
type session struct {
	*conn
	client *tls.Conn
	in     *stallReader
	br     *bufio.Reader
	up     *upstreamConn // kept for the next request of this client

	reading chan error  // the result of the reader, when one runs
	running bool        // a reader runs
	watch   *time.Timer // starts a reader for a request without a body; nil: none is due
	half    atomic.Bool

	mu      sync.Mutex
	current *exchange // under way; guarded by mu
}

func newSession(c *conn, client *tls.Conn) *session {
	s := &session{conn: c, client: client, up: c.early, reading: make(chan error, 1)}
	c.early = nil
	s.in = &stallReader{Reader: client, raw: c.raw, patience: c.srv.limits.Stall}
	s.br = bufio.NewReaderSize(s.in, readBuffer)
	return s
}

// stallReader gives up on a client that sends nothing for too long in the middle
// of a body. It belongs to whoever reads the client's side.
type stallReader struct {
	io.Reader
	raw      net.Conn
	patience time.Duration
	inBody   bool
}

func (r *stallReader) Read(p []byte) (int, error) {
	if r.inBody {
		_ = r.raw.SetReadDeadline(time.Now().Add(r.patience))
	}
	return r.Reader.Read(p)
}

// serve handles requests until one of the sides is done.
func (s *session) serve(ctx context.Context) {
	defer func() {
		if s.up != nil {
			s.srv.pool.put(s.name, s.up)
		}
	}()
	for s.await() {
		_ = s.raw.SetReadDeadline(time.Now().Add(s.srv.limits.Header))
		began := time.Now()
		req, err := http1.ReadRequest(s.br, s.srv.limits.head())
		if err != nil {
			s.refuse(req, err, began)
			return
		}
		_ = s.raw.SetReadDeadline(time.Time{})
		s.requests.Add(1)
		if !s.exchange(ctx, req, began) || s.half.Load() {
			break
		}
	}
	// A clean end, unless the connection is gone already.
	_ = s.client.CloseWrite()
}

// await waits for the first byte of the next request.
func (s *session) await() bool {
	if !s.running && s.br.Buffered() > 0 {
		return true
	}
	_ = s.raw.SetReadDeadline(time.Now().Add(s.srv.limits.Idle))
	if s.running {
		s.running = false
		return <-s.reading == nil
	}
	_, err := s.br.Peek(1)
	return err == nil
}

// refuse answers bytes that are no acceptable request head, and closes.
func (s *session) refuse(req *http1.Request, err error, began time.Time) {
	denial := &deny.Error{Decision: policy.Deny(policy.Malformed), Detail: err.Error()}
	switch {
	case errors.Is(err, http1.ErrTooLarge):
		denial.Reason, denial.Status, denial.Detail = policy.Limit, http.StatusRequestHeaderFieldsTooLarge, ""
	case errors.Is(err, http1.ErrNotHTTP):
		denial.Reason, denial.Detail = policy.NotHTTP, ""
	case errors.Is(err, http1.ErrVersion):
		denial.Status = http.StatusHTTPVersionNotSupported
	case errors.Is(err, http1.ErrTunnel):
		denial.Reason, denial.Detail = policy.Tunnel, ""
	case errors.Is(err, http1.ErrMalformed):
	default:
		var network net.Error
		if !errors.As(err, &network) || !network.Timeout() {
			return // the client is gone
		}
		denial.Reason, denial.Status, denial.Detail = policy.Limit, http.StatusRequestTimeout, "the header took too long"
	}
	s.requests.Add(1)
	if s.denial != nil {
		denial = s.denial
	}
	if req == nil {
		req = &http1.Request{}
	}
	out := outcome{began: began, method: req.Method, target: req.Target, denial: denial}
	s.reply(&out, req, denial, true)
	s.record(out)
	s.linger()
}

// reply sends an answer of the proxy's own.
func (s *session) reply(out *outcome, req *http1.Request, denial *deny.Error, last bool) {
	if s.srv.silent(denial) {
		reset(s.raw)
		return
	}
	accept, _ := req.Get("Accept")
	out.status = denial.StatusCode()
	kind, body := denial.Body(s.srv.cfg.Instance, deny.Request{
		Host: s.name.String(), Method: req.Method, Target: req.Target, Accept: accept,
	})
	n, _ := s.client.Write(http1.Answer(out.status, req.Method, last, []http1.Field{
		{Name: "Content-Type", Value: kind},
		{Name: "Cache-Control", Value: "no-store"},
		{Name: deny.Header, Value: string(denial.Reason)},
	}, body))
	out.down = int64(n)
}

// lingerTime and lingerBytes bound how much of what a client still sends is thrown
// away after an answer that it should get to read: closing a socket with unread
// bytes resets it, and the answer would be lost.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 64 << 20
)

// linger ends the connection so that the client gets everything written to it.
func (s *session) linger() {
	_ = s.client.CloseWrite()
	if half, ok := s.raw.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = s.raw.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, s.raw, lingerBytes)
	_ = s.raw.Close()
}

// view is the request as the pipeline sees it.
func (s *session) view(req *http1.Request) *http.Request {
	header := make(http.Header, len(req.Fields))
	for _, f := range req.Fields {
		key := textproto.CanonicalMIMEHeaderKey(f.Name)
		header[key] = append(header[key], f.Value)
	}
	return &http.Request{
		Method: req.Method, Host: req.Host, RequestURI: req.Target, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: req.Minor,
		URL: &url.URL{Scheme: "https", Host: req.Host, Opaque: "//" + req.Host + req.Target},
	}
}

// watchDelay is how long an answer may take before anybody looks whether its
// client still waits. Most answers come sooner, and then no goroutine is started for them.
const watchDelay = 20 * time.Millisecond

// startReader passes the request's body on, if it has one, and then waits for
// what the client does next. Without a body it begins with that after watchDelay.
func (s *session) startReader(x *exchange) {
	if x.req.Framing == http1.NoBody {
		s.watch = time.AfterFunc(watchDelay, func() { s.read(nil) })
		return
	}
	s.running = true
	go s.read(x)
}

// settleReader finds out, at the end of an exchange, whether its reader was ever started.
func (s *session) settleReader() {
	if s.watch != nil {
		s.running = !s.watch.Stop()
		s.watch = nil
	}
}

// read is the reader. x is the exchange whose body is to be passed on, nil for none.
func (s *session) read(x *exchange) {
	defer func() {
		if v := recover(); v != nil {
			s.srv.log.Error("reading from a client broke down", "conn", s.id, "panic", v)
			_ = s.raw.Close()
			s.reading <- errors.New("reader broke down")
		}
	}()
	if x != nil {
		s.in.inBody = true
		err := x.sendBody(s.br)
		s.in.inBody = false
		_ = s.raw.SetReadDeadline(time.Time{})
		x.bodyDone <- err
		if err != nil {
			s.reading <- err
			return
		}
	}
	_, err := s.br.Peek(1)
	if err != nil {
		s.clientLeft(err)
	}
	s.reading <- err
}

// clientLeft decides what the end of the client's side means for an exchange that is under
// way: a closing alert alone closes one direction, and the answer is still wanted;
// a FIN, a reset or silence past the deadline end it.
func (s *session) clientLeft(err error) {
	s.half.Store(true)
	if errors.Is(err, io.EOF) {
		s.mu.Lock()
		busy := s.current != nil
		s.mu.Unlock()
		if !busy {
			return
		}
		var b [1]byte
		_, _ = s.raw.Read(b[:])
	}
	s.mu.Lock()
	x := s.current
	s.mu.Unlock()
	if x != nil {
		x.abandon()
	}
}
