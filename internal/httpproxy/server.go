// Package httpproxy intercepts the agent's HTTPS. A connection that nftables
// redirected here is judged by its ClientHello before anything else happens,
// ends its TLS here with a leaf of the instance's CA, and each of its requests
// and HTTP/2 streams is judged before a byte of it goes to the server of that
// name, over a connection of our own whose certificate was verified.
//
// One value binds everything: the normalised server name is the name minted,
// resolved, verified, asked of the policy and written to the log, and a request
// for another authority is refused. The address that the client dialled is not used.
//
// HTTP/1.1 is passed on byte for byte (package http1); HTTP/2 by golang.org/x/net/http2 on
// both sides. The one thing taken out of responses is Alt-Svc: it would steer
// clients to QUIC and other ports, which are closed.
package httpproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/martian/v3"
	"golang.org/x/time/rate"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/pipeline"
)

// Dialer connects to a name's own addresses; *upstream.Resolver is one.
type Dialer interface {
	Dial(ctx context.Context, name hostname.Name, port uint16) (net.Conn, error)
}

// Minter makes leaf certificates; *ca.Authority is one.
type Minter interface {
	LeafFor(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// DenyStyle says how a name that is not allowed is refused.
type DenyStyle string

const (
	// Explain answers with a readable 403, under a leaf of the instance's CA.
	Explain DenyStyle = "explain"
	// Reset answers with a TCP reset and mints nothing.
	Reset DenyStyle = "reset"
)

// Config is what a Server needs. Gate, Dialer, Leaves and Audit are required.
type Config struct {
	Gate   pipeline.Gate
	Dialer Dialer
	Leaves Minter
	// DenialLeaves mints for names that are not allowed, apart from Leaves so that
	// a flood of them cannot push allowed leaves out of its cache. Without it
	// such names are reset.
	DenialLeaves Minter
	// Roots verify upstream certificates; nil means the system's.
	Roots     *x509.CertPool
	Audit     audit.Recorder
	Instance  string
	DenyStyle DenyStyle // "" means Explain
	Limits    Limits
	// Modifiers judge requests after the policy did.
	Modifiers []martian.RequestModifier
	Log       *slog.Logger // nil means none
}

// Server is the listener of intercepted HTTPS.
type Server struct {
	cfg      Config
	limits   Limits
	log      *slog.Logger
	pipeline *pipeline.Pipeline
	tickets  *ticketKeys
	pool     *pool
	denials  *rate.Limiter // of leaves minted for denied names

	base   context.Context // ends with the server
	cancel context.CancelFunc
	lastID atomic.Uint64

	mu        sync.Mutex
	listeners map[net.Listener]struct{} // guarded by mu
	conns     map[*conn]struct{}        // guarded by mu
	closed    bool                      // guarded by mu
	wg        sync.WaitGroup
}

// New returns a server. It starts nothing.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, limits: cfg.Limits.withDefaults(), log: cfg.Log,
		pipeline: pipeline.New(cfg.Gate, cfg.Modifiers...), tickets: newTicketKeys(),
		listeners: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.denials = rate.NewLimiter(rate.Limit(s.limits.DenialLeavesPerSecond), s.limits.DenialLeavesPerSecond)
	s.base, s.cancel = context.WithCancel(context.Background())
	s.pool = newPool(s)
	return s
}

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("HTTPS proxy is closed")

// Serve accepts connections until Shutdown, and then returns ErrClosed.
// Accepting goes on after passing errors such as a lack of file descriptors.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	pause := acceptPause
	for {
		raw, err := l.Accept()
		if err != nil {
			if s.base.Err() != nil {
				return ErrClosed
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			s.log.Warn("accepting a connection", "err", err)
			select {
			case <-time.After(pause):
			case <-s.base.Done():
				return ErrClosed
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = acceptPause
		s.start(raw)
	}
}

const acceptPause = 5 * time.Millisecond

// start serves one connection on its own goroutine, or resets it when there
// are too many.
func (s *Server) start(raw net.Conn) {
	c := &conn{srv: s, raw: raw, began: time.Now(), id: "h" + strconv.FormatUint(s.lastID.Add(1), 36)}
	s.mu.Lock()
	full := len(s.conns) >= s.limits.Conns
	if s.closed || full {
		s.mu.Unlock()
		reset(raw)
		if full {
			c.recordRefusal(limitDenial("too many connections"), "")
		}
		return
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		defer func() {
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		}()
		defer func() {
			// One broken connection must not end the others.
			if v := recover(); v != nil {
				s.log.Error("serving a connection broke down", "conn", c.id, "panic", v)
				reset(raw)
			}
		}()
		c.serve(s.base)
	}()
}

// Shutdown closes the listeners and every connection, idle or not, and waits
// until their goroutines are gone or ctx ends. A firewall that goes away has
// nothing to finish: clients are cut off at once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.cancel()
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		_ = c.raw.Close()
	}
	s.mu.Unlock()
	s.pool.close()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Conns returns the number of open client connections.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}
