package httpproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/clienthello"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/deny"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

const (
	protoH1 = "http/1.1"
	protoH2 = "h2"
)

// conn is one connection of the agent, from its first byte on.
type conn struct {
	srv   *Server
	raw   net.Conn
	id    string
	began time.Time

	hello clienthello.Hello
	name  hostname.Name
	// denial is set when the name is not allowed and the client is to be told so.
	denial *deny.Error
	// early is the upstream connection that was opened to learn its protocol.
	early    *upstreamConn
	earlyErr error

	requests atomic.Int64
	broken   atomic.Int64 // errors that the HTTP/2 library told of
	revoked  atomic.Bool

	mu       sync.Mutex
	onRevoke func() // guarded by mu; nil: close raw
}

// serve does everything for the connection and closes it.
func (c *conn) serve(ctx context.Context) {
	defer c.raw.Close()
	_ = c.raw.SetDeadline(time.Now().Add(c.srv.limits.Handshake))
	hello, read, err := clienthello.Read(c.raw)
	if err != nil {
		if len(read) > 0 || !errors.Is(err, io.EOF) {
			c.refuseHello(helloDenial(err, read), alertDecodeError)
		}
		return
	}
	c.hello = hello
	if denial, alert := c.readName(); denial != nil {
		c.refuseHello(denial, alert)
		return
	}
	if d := c.srv.cfg.Gate.Current().Policy.TLS(c.name); !d.Allow {
		c.serveDenied(ctx, &deny.Error{Decision: d}, read)
		return
	}
	// Admission judges once more, and from here on a reload ends the connection.
	release, d := c.srv.cfg.Gate.Admit(c)
	defer release()
	if !d.Allow {
		c.serveDenied(ctx, &deny.Error{Decision: d}, read)
		return
	}
	c.serveTLS(ctx, read)
}

// readName takes the name that everything is bound to from the ClientHello.
//
// Invariant: no server name, an address or a malformed name end the connection
// before a lookup, a dial or a minting (TestHelloDecides, A1, A2).
func (c *conn) readName() (*deny.Error, byte) {
	if !c.hello.HasServerName {
		return deny.For(policy.NoSNI, ""), alertUnrecognizedName
	}
	// RFC 6066, 3: without a trailing dot. TLS stacks refuse one.
	name, err := hostname.Parse(c.hello.ServerName)
	if err != nil || strings.HasSuffix(c.hello.ServerName, ".") {
		return deny.For(policy.Malformed, "the server name is not a host name"), alertUnrecognizedName
	}
	c.name = name
	return nil, 0
}

// helloDenial gives the reason for what could not be read as a ClientHello.
func helloDenial(err error, read []byte) *deny.Error {
	switch {
	case errors.Is(err, clienthello.ErrNotTLS):
		if cleartext(read) {
			return deny.For(policy.Cleartext, "")
		}
		return deny.For(policy.NotTLS, "")
	case errors.Is(err, clienthello.ErrMalformed):
		return deny.For(policy.Malformed, "the ClientHello is malformed")
	case errors.Is(err, clienthello.ErrTooLarge):
		return deny.For(policy.Limit, "the ClientHello is too large")
	}
	return deny.For(policy.TLSHandshake, "the ClientHello was not finished")
}

// cleartext reports whether the first bytes look like an HTTP request line.
func cleartext(b []byte) bool {
	for i, c := range b {
		if c == ' ' {
			return i > 0
		}
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return len(b) > 0
}

// Judge implements enforce.Flow.
func (c *conn) Judge(p *policy.Policy) policy.Decision { return p.TLS(c.name) }

// Revoke implements enforce.Flow: the host is no longer allowed at all.
func (c *conn) Revoke(d policy.Decision) {
	c.revoked.Store(true)
	d.Reason = policy.Revoked
	c.recordRefusal(&deny.Error{Decision: d}, c.name.String())
	c.mu.Lock()
	f := c.onRevoke
	c.mu.Unlock()
	if f != nil {
		f()
		return
	}
	_ = c.raw.Close()
}

func (c *conn) setOnRevoke(f func()) {
	c.mu.Lock()
	c.onRevoke = f
	c.mu.Unlock()
	if c.revoked.Load() {
		f()
	}
}

// serveDenied explains to the client that the name is not allowed, or resets.
//
// Invariant: nothing upstream is touched, and leaves for denied names come from their
// own cache at a bounded rate (TestHelloDecides, K4).
func (c *conn) serveDenied(ctx context.Context, denial *deny.Error, read []byte) {
	if c.srv.cfg.DenyStyle == Reset || c.srv.cfg.DenialLeaves == nil || !c.srv.denials.Allow() {
		reset(c.raw)
		c.recordRefusal(denial, c.name.String())
		return
	}
	c.denial = denial
	c.serveTLS(ctx, read)
	// One line for a client that never got as far as a request.
	if c.requests.Load() == 0 {
		c.recordRefusal(denial, c.name.String())
	}
}

// serveTLS finishes the handshake and hands over to the plane of the protocol
// that was negotiated.
func (c *conn) serveTLS(ctx context.Context, read []byte) {
	cfg := &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  c.protocols(ctx),
		DynamicRecordSizingDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c.denial != nil {
				return c.srv.cfg.DenialLeaves.LeafFor(hello)
			}
			return c.srv.cfg.Leaves.LeafFor(hello)
		},
	}
	cfg.SetSessionTicketKeys(c.srv.tickets.of(c.name))
	defer func() {
		if c.early != nil {
			c.early.close()
		}
	}()
	link := &clientLink{Conn: c.raw, replay: read, stall: c.srv.limits.Stall}
	client := tls.Server(link, cfg)
	_ = c.raw.SetDeadline(time.Now().Add(c.srv.limits.Handshake))
	if err := client.HandshakeContext(ctx); err != nil {
		c.handshakeFailed(err)
		return
	}
	_ = c.raw.SetDeadline(time.Time{})
	state := client.ConnectionState()
	// Invariant: crypto/tls negotiated the name that was judged, also after a
	// HelloRetryRequest (A12).
	if name, err := hostname.Parse(state.ServerName); err != nil || name != c.name {
		reset(c.raw)
		c.recordRefusal(deny.For(policy.Malformed, "the server name changed"), c.name.String())
		return
	}
	// Invariant: what was negotiated is what is parsed (TestALPN, A14).
	switch state.NegotiatedProtocol {
	case protoH2:
		c.serveH2(ctx, client)
	case protoH1, "":
		newSession(c, client).serve(ctx)
	}
}

func (c *conn) handshakeFailed(err error) {
	denial := c.denial
	if denial == nil {
		denial = deny.For(policy.TLSHandshake, "")
	}
	c.srv.log.Debug("TLS handshake with the client", "conn", c.id, "host", c.name.String(), "err", err)
	if c.denial == nil && !c.revoked.Load() {
		c.recordRefusal(denial, c.name.String())
	}
}

// protocols returns what to offer the client: what its server speaks. Where that is not
// known and the client leaves a choice, the server is asked, so that no
// request has to be translated between versions of HTTP.
func (c *conn) protocols(ctx context.Context) []string {
	switch {
	case c.denial != nil:
		return []string{protoH2, protoH1}
	case !c.hello.Offers(protoH2):
		return []string{protoH1}
	}
	both := []string{protoH2, protoH1}
	switch c.srv.pool.protocol(c.name) {
	case protoH2:
		return both
	case protoH1:
		return []string{protoH1}
	}
	offer := both
	if !c.hello.Offers(protoH1) {
		offer = []string{protoH2}
	}
	up, err := c.srv.dial(ctx, c.name, offer)
	if err != nil {
		// The first request is told.
		c.earlyErr = err
		return both
	}
	if up.protocol == protoH2 {
		c.srv.pool.addH2(c.name, up)
		return both
	}
	c.srv.pool.chose(c.name)
	c.early = up
	return []string{protoH1}
}

// TLS alert descriptions (RFC 8446, 6).
const (
	alertDecodeError      = 50
	alertUnrecognizedName = 112
)

// refuseHello ends a connection that has no name to be judged by.
func (c *conn) refuseHello(denial *deny.Error, alert byte) {
	switch {
	case c.srv.cfg.DenyStyle == Reset, denial.Reason == policy.NotTLS, denial.Reason == policy.Cleartext:
		reset(c.raw)
	default:
		_, _ = c.raw.Write([]byte{21, 3, 3, 0, 2, 2, alert})
	}
	c.recordRefusal(denial, c.hello.ServerName)
}

// silent reports whether a denied request gets no answer: in the style "reset",
// except where it is the server that is at fault.
func (s *Server) silent(denial *deny.Error) bool {
	return s.cfg.DenyStyle == Reset && denial.StatusCode() != http.StatusBadGateway
}

func limitDenial(detail string) *deny.Error { return deny.For(policy.Limit, detail) }

// reset closes with a TCP reset.
func reset(raw net.Conn) {
	if tcp, ok := raw.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = raw.Close()
}

// clientLink lies under the client's TLS: it gives back the bytes of the
// ClientHello first, and no write waits longer than stall for a client that does
// not read.
type clientLink struct {
	net.Conn
	replay []byte
	stall  time.Duration
}

func (l *clientLink) Read(p []byte) (int, error) {
	if len(l.replay) > 0 {
		n := copy(p, l.replay)
		if l.replay = l.replay[n:]; len(l.replay) == 0 {
			l.replay = nil
		}
		return n, nil
	}
	return l.Conn.Read(p)
}

func (l *clientLink) Write(p []byte) (int, error) {
	_ = l.Conn.SetWriteDeadline(time.Now().Add(l.stall))
	return l.Conn.Write(p)
}
