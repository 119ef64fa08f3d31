package sshproxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// session is one connection to the proxy. It is an enforce.Flow once it has a host.
type session struct {
	server  *Server
	client  net.Conn
	id      string
	started time.Time
	refused bool // beyond the limit of connections
	host    hostname.Name

	mu       sync.Mutex // protects all the following
	upstream net.Conn
	cancel   context.CancelFunc
	revoked  *policy.Decision
	closed   bool
}

// Judge says what p would decide.
func (s *session) Judge(p *policy.Policy) policy.Decision { return p.SSH(s.host) }

// Revoke closes both sides.
func (s *session) Revoke(d policy.Decision) {
	s.mu.Lock()
	s.revoked = &d
	s.mu.Unlock()
	s.close()
}

// close ends the session from outside; serve then returns.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	if s.cancel != nil {
		s.cancel()
	}
	if s.upstream != nil {
		s.upstream.Close()
	}
	s.client.Close()
}

// attach hands over what close has to end. It reports false when the session is
// closed already.
func (s *session) attach(cancel context.CancelFunc, upstream net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if cancel != nil {
		s.cancel = cancel
	}
	if upstream != nil {
		s.upstream = upstream
	}
	return true
}

func (s *session) revocation() (policy.Decision, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revoked == nil {
		return policy.Decision{}, false
	}
	return *s.revoked, true
}

func (s *session) serve() {
	config := &s.server.config
	if s.refused {
		s.refuse(target{}, &refusal{status: http.StatusServiceUnavailable, reason: policy.Limit,
			message: "too many SSH tunnels are open; close some and try again"})
		return
	}
	_ = s.client.SetDeadline(time.Now().Add(config.HeadTimeout))
	head, held, refused := readHead(s.client)
	if head == nil && refused == nil {
		return // connected and left
	}
	var want target
	if refused == nil {
		want, refused = parseHead(head)
	}
	if refused != nil {
		s.refuse(want, refused)
		return
	}
	s.host = want.host

	generation := config.Gate.Current().Generation
	release, decision := config.Gate.Admit(s)
	defer release()
	if !decision.Allow {
		refused := explain(want.host, decision.Reason)
		s.refuse(want, refused)
		return
	}
	event := audit.Event{
		Time: s.started, Instance: config.Instance, Generation: generation, Conn: s.id, Kind: audit.KindSSH,
		Verdict: audit.Allow, Rule: decision.Rule, Host: want.host.String(), Port: sshPort, Method: http.MethodConnect,
		Status: http.StatusOK, Opaque: true,
	}
	if refused := s.tunnel(held, &event); refused != nil {
		refused.host, refused.port = want.host.String(), sshPort
		s.refuse(want, refused)
		return
	}
	if d, ok := s.revocation(); ok {
		event.Verdict, event.Reason, event.Rule = audit.Deny, string(policy.Revoked), d.Rule
	}
	event.DurationMS = milliseconds(time.Since(s.started))
	config.Audit.Record(event)
}

// tunnel connects, has both sides identify themselves and relays. It fills in
// event, and returns a refusal as long as the client can still be told.
//
// Invariant: the client's bytes reach the server only after the server has
// identified itself, the client has been answered 200 and has identified itself
// too (TestNothingReachesTheServerBeforeBothBanners).
func (s *session) tunnel(held []byte, event *audit.Event) *refusal {
	config := &s.server.config
	ctx, cancel := context.WithTimeout(context.Background(), config.DialTimeout)
	defer cancel()
	if !s.attach(cancel, nil) {
		return nil
	}
	server, err := config.Dialer.Dial(ctx, s.host, sshPort)
	if err != nil {
		return unreachable(s.host, err)
	}
	defer server.Close()
	event.Upstream = server.RemoteAddr().String()
	if !s.attach(nil, server) {
		return nil
	}
	_ = server.SetDeadline(time.Now().Add(config.BannerTimeout))
	greeting, err := readServerBanner(server)
	if err != nil {
		return &refusal{status: http.StatusBadGateway, reason: notSSH(err),
			message: "the server at port 22 of " + s.host.String() + " does not answer as SSH: " + cause(err)}
	}
	_ = s.client.SetDeadline(time.Now().Add(config.BannerTimeout))
	if _, err := s.client.Write(append([]byte(established), greeting...)); err != nil {
		return nil
	}
	event.BytesDown = int64(len(greeting))
	opening, err := readClientBanner(s.client, held)
	if err != nil {
		event.Verdict, event.Reason, event.Rule = audit.Deny, string(notSSH(err)), ""
		return nil
	}
	if _, err := server.Write(opening); err != nil {
		return nil
	}
	event.BytesUp = int64(len(opening))
	up, down := relay(s.client, server, config.IdleTimeout)
	event.BytesUp += up
	event.BytesDown += down
	return nil
}

func notSSH(err error) policy.Reason {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return policy.Limit
	}
	return policy.NotSSH
}

// cause words an error of a banner for the user; the system's own words for a
// broken connection would name addresses and say less.
func cause(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "it stayed silent"
	case errors.Is(err, errNotSSH), errors.Is(err, errSSHVersion):
		return err.Error()
	}
	return "the connection broke"
}

// unreachable words a failed dial.
func unreachable(host hostname.Name, err error) *refusal {
	var special *upstream.SpecialAddressError
	switch {
	case errors.Is(err, upstream.ErrBusy):
		return &refusal{status: http.StatusServiceUnavailable, reason: policy.Limit, message: "too many names are being resolved; try again"}
	case errors.As(err, &special):
		return &refusal{status: http.StatusForbidden, reason: policy.SpecialAddress,
			message: host.String() + " resolves to a special address only, which is never dialled unless allow_private lists it"}
	}
	return &refusal{status: http.StatusBadGateway, reason: policy.UpstreamUnreachable,
		message: host.String() + " is allowed, but it cannot be reached at port 22"}
}

// refuse answers, records and ends the session.
func (s *session) refuse(t target, r *refusal) {
	config := &s.server.config
	method := r.method
	if method == "" && r.host != "" {
		method = http.MethodConnect
	}
	if _, ok := s.revocation(); ok {
		r.reason = policy.Revoked
	}
	config.Audit.Record(audit.Event{
		Time: s.started, Instance: config.Instance, Generation: config.Gate.Current().Generation, Conn: s.id,
		Kind: audit.KindSSH, Verdict: audit.Deny, Reason: string(r.reason), Host: r.host, Port: int(r.port),
		Method: method, Status: r.status, DurationMS: milliseconds(time.Since(s.started)),
	})
	if config.Reset {
		if tcp, ok := s.client.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		return
	}
	_ = s.client.SetDeadline(time.Now().Add(config.HeadTimeout))
	if _, err := s.client.Write(r.response(config.Instance, t.wantJSON)); err != nil {
		return
	}
	lingeringClose(s.client)
}

// lingeringClose ends the answer and reads what the client still sends: closing
// with unread bytes resets the connection, and the reset can overtake the answer.
func lingeringClose(conn net.Conn) {
	closeWrite(conn)
	_ = conn.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.CopyN(io.Discard, conn, 256<<10)
}

// readHead reads up to and including the empty line and returns what follows it
// as held. All nil means that nothing was sent.
func readHead(conn net.Conn) (head, held []byte, refused *refusal) {
	var data []byte
	for {
		if i := bytes.Index(data, []byte("\r\n\r\n")); i >= 0 && i+4 <= maxHead {
			return data[:i+4], data[i+4:], nil
		}
		switch {
		case hopeless(data):
			return nil, nil, malformed("this port speaks HTTP CONNECT for SSH only")
		case len(data) >= maxHead:
			return nil, nil, &refusal{status: http.StatusRequestHeaderFieldsTooLarge, reason: policy.Limit,
				message: "the request head is too long"}
		}
		var chunk [2048]byte
		n, err := conn.Read(chunk[:])
		data = append(data, chunk[:n]...)
		switch {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil, &refusal{status: http.StatusRequestTimeout, reason: policy.Limit, message: "the request took too long"}
		case len(data) == 0:
			return nil, nil, nil
		default:
			return nil, nil, malformed("the request ended early")
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
