package httpproxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rootcell-ai/rootcell/internal/httpproxy/deny"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/http1"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/pipeline"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// exchange is one request of a session and its answer.
type exchange struct {
	s        *session
	req      *http1.Request
	out      outcome
	bodyDone chan error // the result of sending the body; only for requests with one

	cancel  context.CancelFunc // of dialing
	revoked atomic.Pointer[policy.Decision]

	mu   sync.Mutex
	up   *upstreamConn // guarded by mu
	gone bool          // abandoned; guarded by mu
	bad  error         // what is wrong with the body the client sent; guarded by mu
	sent atomic.Int64
	// unwanted is set when the final answer came to a client that was still to be
	// told to go on with its body.
	unwanted atomic.Bool
}

var (
	// errAbandoned means that the client left or the request was revoked.
	errAbandoned = errors.New("exchange abandoned")
	// errSwitch is an upgrade that the client did not ask for.
	errSwitch = errors.New("the server switched protocols unasked")
)

// earlyAnswerGrace is how long the rest of a body may take after its answer is complete
// for the connections to be used again.
const earlyAnswerGrace = 100 * time.Millisecond

// exchange serves one request and reports whether the connection can go on.
func (s *session) exchange(ctx context.Context, req *http1.Request, began time.Time) (more bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	x := &exchange{s: s, req: req, cancel: cancel, bodyDone: make(chan error, 1)}
	x.out = outcome{began: began, method: req.Method, target: req.Target}
	defer func() { s.record(x.out) }()
	flow := &pipeline.Exchange{Name: s.name, OnRevoke: func(d policy.Decision) {
		x.revoked.Store(&d)
		x.abandon()
		_ = s.raw.Close()
	}}
	defer flow.Release()
	var denial *deny.Error
	if s.denial != nil {
		denial = s.denial
	} else if err := s.srv.pipeline.Judge(s.view(req).WithContext(pipeline.With(ctx, flow))); err != nil && !errors.As(err, &denial) {
		denial = deny.For(policy.BadPolicy, err.Error())
	}
	if denial != nil {
		return x.refuse(denial)
	}
	x.out.decision = flow.Decision()
	return x.run(ctx)
}

// refuse answers for the server. The connection goes on only after a request
// that is over with its head.
func (x *exchange) refuse(denial *deny.Error) (more bool) {
	x.out.denial = denial
	last := x.s.denial != nil || x.req.Framing != http1.NoBody || x.req.Close || denial.Reason == policy.Malformed || denial.Reason == policy.Tunnel
	x.s.reply(&x.out, x.req, denial, last)
	if last {
		x.s.linger()
	}
	return !last
}

// run sends the request and passes the answer on.
func (x *exchange) run(ctx context.Context) (more bool) {
	s := x.s
	s.mu.Lock()
	s.current = x
	s.mu.Unlock()
	defer func() {
		s.settleReader()
		s.mu.Lock()
		s.current = nil
		s.mu.Unlock()
	}()
	res, up, err := x.answer(ctx)
	switch {
	case err != nil:
		return x.failed(err, up)
	case res.Status == http.StatusSwitchingProtocols:
		x.out.status, x.out.opaque = res.Status, true
		x.tunnel(res, up)
		return false
	}
	return x.pass(res, up)
}

// answer sends the head and reads up to the final head of the answer; interim
// ones are passed on. A kept connection that turns out to be closed is replaced once, for
// requests that may be sent again (RFC 9110, 9.2.2).
func (x *exchange) answer(ctx context.Context) (*http1.Response, *upstreamConn, error) {
	for {
		up, err := x.connect(ctx)
		if err != nil {
			return nil, nil, err
		}
		reused := up.used
		up.used = true
		res, heard, err := x.converse(up)
		if err == nil {
			return res, up, nil
		}
		up.close()
		if heard || !reused || !x.repeatable() || x.abandoned() {
			return nil, up, err
		}
	}
}

// repeatable reports whether the request may be sent a second time: it has no
// body and changes nothing.
func (x *exchange) repeatable() bool {
	switch x.req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return x.req.Framing == http1.NoBody && x.req.WebSocket == ""
	}
	return false
}

// connect returns a connection to send on: the client's own from before, one that another
// client left, or a new one. What cannot be repeated goes on a connection that
// might have been closed meanwhile only where the client itself took that chance by
// using its connection again.
func (x *exchange) connect(ctx context.Context) (*upstreamConn, error) {
	s := x.s
	up := s.up
	s.up = nil
	if up != nil && !up.usable(s.srv.cfg.Gate.Current().Generation) {
		up.close()
		up = nil
	}
	if up == nil && x.repeatable() {
		up = s.srv.pool.get(s.name)
	}
	if up == nil {
		var err error
		if up, err = s.srv.dial(ctx, s.name, []string{protoH1}); err != nil {
			return nil, err
		}
	}
	x.out.upstream = up.address
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.gone {
		up.close()
		return nil, errAbandoned
	}
	x.up = up
	return up, nil
}

// converse sends the head and reads the answer's. heard means that the server said anything.
func (x *exchange) converse(up *upstreamConn) (res *http1.Response, heard bool, err error) {
	s := x.s
	_ = up.SetWriteDeadline(time.Now().Add(s.srv.limits.Stall))
	if _, err := up.Write(x.req.Raw); err != nil {
		return nil, false, err
	}
	x.sent.Add(int64(len(x.req.Raw)))
	// A handshake's tunnel reads the client itself.
	if !s.running && s.watch == nil && x.req.WebSocket == "" && (s.br.Buffered() == 0 || x.req.Framing != http1.NoBody) {
		s.startReader(x)
	}
	continued := false
	for {
		res, err := http1.ReadResponse(up.br, x.req.Method, s.srv.limits.head())
		if err != nil {
			return nil, heard, err
		}
		heard = true
		if res.Status == http.StatusSwitchingProtocols {
			if !res.Accepts(x.req.WebSocket) {
				return nil, heard, errSwitch
			}
			return res, heard, nil
		}
		if res.Status >= 200 {
			x.unwanted.Store(x.req.Continue && !continued)
			return res, heard, nil
		}
		continued = continued || res.Status == http.StatusContinue
		if x.req.Minor == 0 {
			continue // RFC 9110, 15.2
		}
		if _, err := s.client.Write(res.Without("Alt-Svc")); err != nil {
			return nil, heard, errAbandoned
		}
	}
}

// sendBody passes the request's body on. It runs on the reader's goroutine.
func (x *exchange) sendBody(src bodySource) error {
	x.mu.Lock()
	up := x.up
	x.mu.Unlock()
	n, err := http1.CopyBody(bodyWriter{x, up}, src, x.req.Framing, x.req.Length, x.s.srv.limits.head())
	x.sent.Add(n)
	if err != nil && !errors.Is(err, http1.ErrWrite) {
		// The client's fault: the server must not wait for the rest, nor take what
		// came for a whole.
		x.mu.Lock()
		x.bad = err
		x.mu.Unlock()
		x.abandon()
	}
	return err
}

// pass sends the final answer to the client.
func (x *exchange) pass(res *http1.Response, up *upstreamConn) (more bool) {
	s := x.s
	x.out.status = res.Status
	w := &headFirst{w: s.client, head: res.Without("Alt-Svc")}
	if up.br.Buffered() == 0 || res.Framing == http1.NoBody {
		if err := w.flush(); err != nil {
			return x.cut(up)
		}
	}
	_, err := http1.CopyBody(w, up.br, res.Framing, res.Length, s.srv.limits.head())
	x.out.down, x.out.up = w.written, x.sent.Load()
	if err == nil {
		err = w.flush()
	}
	if err != nil || res.Framing == http1.CloseBody && !up.saidGoodbye() {
		return x.cut(up)
	}
	bodySent := x.bodySent()
	if bodySent && !res.Close && !x.req.Close && up.br.Buffered() == 0 && !x.abandoned() {
		s.up = up
		return true
	}
	up.close()
	if !bodySent {
		s.linger()
	}
	return false
}

// bodySent reports whether the request's body went out whole.
//
// Invariant: where the answer came first, neither connection is used again: what
// is body to us might be the next request to the server (TestEarlyAnswer, B7).
func (x *exchange) bodySent() bool {
	if x.req.Framing == http1.NoBody {
		return true
	}
	if x.unwanted.Load() {
		select {
		case err := <-x.bodyDone:
			return err == nil // sent without waiting to be told
		default:
			return false
		}
	}
	timer := time.NewTimer(earlyAnswerGrace)
	defer timer.Stop()
	select {
	case err := <-x.bodyDone:
		return err == nil
	case <-timer.C:
		return false
	}
}

// cut ends both sides so that the client sees an answer that is cut short: a TCP
// end without the closing alert of TLS.
func (x *exchange) cut(up *upstreamConn) (more bool) {
	up.close()
	x.out.denial = x.s.revocation(x.revoked.Load())
	x.out.up = x.sent.Load()
	_ = x.s.raw.Close()
	return false
}

// failed ends an exchange that got no final answer.
func (x *exchange) failed(err error, up *upstreamConn) (more bool) {
	if up != nil {
		up.close()
	}
	x.out.up = x.sent.Load()
	x.out.denial = x.s.revocation(x.revoked.Load())
	x.mu.Lock()
	bad := x.bad
	x.mu.Unlock()
	switch {
	case errors.Is(bad, http1.ErrMalformed), errors.Is(bad, http1.ErrTooLarge):
		x.out.denial = deny.For(policy.Malformed, "the request body: "+bad.Error())
	case x.abandoned():
		_ = x.s.raw.Close()
		return false
	default:
		x.out.denial = answerDenial(err, up)
	}
	x.s.reply(&x.out, x.req, x.out.denial, true)
	x.s.linger()
	return false
}

// answerDenial says what is wrong with a server that was reached (up is set) or not.
func answerDenial(err error, up *upstreamConn) *deny.Error {
	switch {
	case errors.Is(err, errSwitch), errors.Is(err, http1.ErrMalformed), errors.Is(err, http1.ErrNotHTTP),
		errors.Is(err, http1.ErrTooLarge), errors.Is(err, http1.ErrVersion):
		return deny.For(policy.UpstreamProtocol, err.Error())
	case up != nil && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		return deny.For(policy.UpstreamUnreachable, "the server closed the connection without an answer")
	}
	return dialDenial(err)
}

// abandon ends the exchange from another goroutine.
func (x *exchange) abandon() {
	x.cancel()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone = true
	if x.up != nil {
		x.up.close()
	}
}

func (x *exchange) abandoned() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.gone
}
