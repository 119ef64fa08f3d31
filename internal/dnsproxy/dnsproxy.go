// Package dnsproxy answers the agent's DNS queries: allowed names through the
// upstream resolvers, everything else with a refusal that says what to do.
//
// A query is read, decided and forgotten. What goes upstream is built anew by
// package upstream from the normalised name, always asks for IPv4 addresses, and
// exists only for names that the policy in force allows; the policy is asked
// before the cache, so a reload counts from the next query on.
package dnsproxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

// Gate has the policy in force.
type Gate interface {
	Current() enforce.Snapshot
}

// Resolver finds the addresses of names that are allowed.
type Resolver interface {
	// Cached answers without sending anything.
	Cached(name hostname.Name, now time.Time) (*upstream.Answer, bool)
	// Lookup asks upstream.
	Lookup(ctx context.Context, name hostname.Name) (*upstream.Answer, error)
}

var (
	_ Gate     = (*enforce.Gate)(nil)
	_ Resolver = (*upstream.Resolver)(nil)
)

// Config is what a Server needs.
type Config struct {
	Gate     Gate
	Resolver Resolver
	Audit    audit.Recorder
	Instance string // for the audit log and the commands in refusals
	Limits   Limits // zero fields mean the defaults
	Log      *slog.Logger
}

// Limits bound what the agent can make the firewall do. A zero field means its
// default.
type Limits struct {
	// InFlight is the number of queries that may wait for upstream. Default 512.
	InFlight int
	// TCPConnections is the number of open TCP connections. Default 64.
	TCPConnections int
	// TCPIdle is how long a TCP connection may be silent between queries, and how
	// long one query may take to arrive. Default 10 s.
	TCPIdle time.Duration
	// NameChars is the length up to which a name may exceed the allowed suffix that
	// covers it. Default 120.
	NameChars int
	// BudgetChars is how many characters new names below one allowed suffix may
	// carry upstream at once, and BudgetPerHour how many come back in an hour.
	// Defaults 8192 and 14400. See budget.
	BudgetChars, BudgetPerHour int
}

func (l *Limits) setDefaults() {
	set(&l.InFlight, 512)
	set(&l.TCPConnections, 64)
	set(&l.TCPIdle, 10*time.Second)
	set(&l.NameChars, 120)
	set(&l.BudgetChars, 8192)
	set(&l.BudgetPerHour, 14400)
}

func set[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Server answers queries on any number of sockets. Make one with New.
type Server struct {
	gate     Gate
	resolver Resolver
	audit    audit.Recorder
	instance string
	limits   Limits
	log      *slog.Logger
	budget   *budget
	probe    hostname.Name // a name that only a rule for everything allows

	lookups  chan struct{} // holds a token for each query that waits for upstream
	tcpConns chan struct{} // holds a token for each TCP connection
	panics   atomic.Uint64

	ctx    context.Context // ends lookups at Shutdown
	cancel context.CancelFunc

	mu      sync.Mutex
	closing bool
	closers map[interface{ Close() error }]struct{}
	running sync.WaitGroup
}

// New returns a Server that does not serve yet.
func New(c Config) *Server {
	c.Limits.setDefaults()
	s := &Server{
		gate:     c.Gate,
		resolver: c.Resolver,
		audit:    c.Audit,
		instance: c.Instance,
		limits:   c.Limits,
		log:      c.Log,
		budget:   newBudget(c.Limits.BudgetChars, c.Limits.BudgetPerHour),
		lookups:  make(chan struct{}, c.Limits.InFlight),
		tcpConns: make(chan struct{}, c.Limits.TCPConnections),
		closers:  map[interface{ Close() error }]struct{}{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.probe, _ = hostname.Parse("rule-for-everything.invalid")
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve answers queries on the sockets until Shutdown, or until all of them are
// closed, and closes them. Trouble with a socket is logged and tried again: a
// firewall that stops answering helps nobody.
func (s *Server) Serve(sockets *Sockets) {
	defer sockets.Close()
	var loops sync.WaitGroup
	for _, conn := range sockets.UDP {
		if s.track(conn) {
			loops.Go(func() {
				defer s.untrack(conn)
				s.serveUDP(conn)
			})
		}
	}
	if l := sockets.TCP; l != nil && s.track(l) {
		loops.Go(func() {
			defer s.untrack(l)
			s.serveTCP(l)
		})
	}
	loops.Wait()
}

// track remembers what Shutdown has to close. It is false after Shutdown.
func (s *Server) track(c interface{ Close() error }) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.closers[c] = struct{}{}
	s.running.Add(1)
	return true
}

func (s *Server) untrack(c interface{ Close() error }) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.closers[c]; known {
		delete(s.closers, c)
		s.running.Done()
	}
}

// Shutdown closes the sockets, ends lookups under way and waits until everything
// has stopped or ctx ends. A second Shutdown only waits.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for c := range s.closers {
		c.Close()
	}
	s.mu.Unlock()
	s.cancel()
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Panics returns the number of queries whose handling panicked.
func (s *Server) Panics() uint64 { return s.panics.Load() }

// closedSocket reports whether err is what a socket says after Close.
func closedSocket(err error) bool { return errors.Is(err, net.ErrClosed) }
