// Package sshproxy tunnels SSH for the agent: an HTTP CONNECT proxy that only
// knows port 22, only the hosts that the policy allows, and only connections on
// which both sides identify themselves as SSH. It sees nothing of what is inside.
package sshproxy

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/hostname"
)

// Defaults of Config.
const (
	DefaultMaxConns      = 256
	DefaultHeadTimeout   = 10 * time.Second
	DefaultBannerTimeout = 15 * time.Second
	DefaultDialTimeout   = 20 * time.Second
	DefaultIdleTimeout   = 2 * time.Hour
)

// Dialer resolves a name and connects to one of its public addresses. Its errors
// may be or wrap *upstream.SpecialAddressError.
type Dialer interface {
	Dial(ctx context.Context, host hostname.Name, port uint16) (net.Conn, error)
}

// Config of a Server. Gate, Dialer, Audit and Log are required; a zero number or
// duration is its default.
type Config struct {
	Gate     *enforce.Gate
	Dialer   Dialer
	Audit    audit.Recorder
	Log      *slog.Logger
	Instance string
	// Reset makes every refusal a TCP reset instead of an answer that explains.
	Reset bool

	MaxConns      int           // connections at once; more are refused
	HeadTimeout   time.Duration // for the request head
	BannerTimeout time.Duration // for either side's identification
	DialTimeout   time.Duration // for resolving and connecting
	IdleTimeout   time.Duration // for an open tunnel without a byte in either direction
}

// Server serves CONNECT. It is safe for concurrent use.
type Server struct {
	config Config
	open   atomic.Int64

	mu      sync.Mutex // protects all the following
	conns   map[*session]struct{}
	closing bool
	wg      sync.WaitGroup

	ended chan struct{} // closed by Shutdown
}

// acceptPause is the first pause after an error of accept; it doubles up to a second.
const acceptPause = 5 * time.Millisecond

// New returns a Server.
func New(config Config) *Server {
	orDefault(&config.MaxConns, DefaultMaxConns)
	orDefault(&config.HeadTimeout, DefaultHeadTimeout)
	orDefault(&config.BannerTimeout, DefaultBannerTimeout)
	orDefault(&config.DialTimeout, DefaultDialTimeout)
	orDefault(&config.IdleTimeout, DefaultIdleTimeout)
	return &Server{config: config, conns: map[*session]struct{}{}, ended: make(chan struct{})}
}

func orDefault[T int | time.Duration](value *T, fallback T) {
	if *value == 0 {
		*value = fallback
	}
}

// Open returns the number of connections being served.
func (s *Server) Open() int { return int(s.open.Load()) }

// Serve accepts connections until listener is closed or Shutdown is called; then it
// returns nil. Trouble with accepting, such as a lack of file descriptors, is logged
// and tried again: a firewall that stops answering helps nobody. A panic in a
// connection ends that connection alone.
func (s *Server) Serve(listener net.Listener) error {
	defer listener.Close()
	pause := acceptPause
	for {
		conn, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || s.isClosing() {
				return nil
			}
			s.config.Log.Warn("accepting an SSH tunnel", "err", err)
			select {
			case <-time.After(pause):
			case <-s.ended:
				return nil
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = acceptPause
		session := &session{server: s, client: conn, id: rand.Text()[:12], started: time.Now()}
		if !s.add(session) {
			conn.Close()
			continue
		}
		go func() {
			defer s.remove(session)
			defer func() {
				if cause := recover(); cause != nil {
					s.config.Log.Error("serving an SSH tunnel panicked", "cause", cause, "stack", string(debug.Stack()))
				}
			}()
			session.serve()
		}()
	}
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *Server) add(session *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A connection beyond the limit is still told so, but not ten times the limit.
	if s.closing || len(s.conns) >= s.config.MaxConns+s.config.MaxConns/8+1 {
		return false
	}
	session.refused = len(s.conns) >= s.config.MaxConns
	s.conns[session] = struct{}{}
	s.open.Add(1)
	s.wg.Add(1)
	return true
}

func (s *Server) remove(session *session) {
	session.close()
	s.mu.Lock()
	delete(s.conns, session)
	s.mu.Unlock()
	s.open.Add(-1)
	s.wg.Done()
}

// Shutdown ends every tunnel and waits until their audit events are recorded or
// ctx ends. The caller closes the listeners.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.ended)
	}
	for session := range s.conns {
		session.close()
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
