package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

const (
	// restAfterFailure is how long a resolver that failed comes last.
	restAfterFailure = 10 * time.Second
	// socketSlots is the number of local ports in use towards one resolver.
	socketSlots = 8
)

// server is one upstream resolver.
type server struct {
	addr netip.AddrPort
	log  *slog.Logger

	restUntil atomic.Int64 // Unix nanoseconds; comes last before then
	plainCase atomic.Bool  // it does not keep the case of names
	noEDNS    atomic.Bool  // it does not understand EDNS

	mu      sync.Mutex
	closed  bool
	sockets [socketSlots]*socket
}

func newServer(addr netip.AddrPort, log *slog.Logger) *server {
	return &server{addr: addr, log: log}
}

func (s *server) failed(now time.Time) { s.restUntil.Store(now.Add(restAfterFailure).UnixNano()) }
func (s *server) worked() {
	if s.restUntil.Load() != 0 {
		s.restUntil.Store(0)
	}
}

// byHealth returns the servers in their order, those that rest last.
func byHealth(servers []*server, now time.Time) []*server {
	if len(servers) == 1 {
		return servers
	}
	resting := func(s *server) bool { return s.restUntil.Load() > now.UnixNano() }
	sorted := slices.Clone(servers)
	slices.SortStableFunc(sorted, func(a, b *server) int {
		switch ra, rb := resting(a), resting(b); {
		case ra == rb:
			return 0
		case rb:
			return -1
		}
		return 1
	})
	return sorted
}

// patience is how long the n-th attempt at a resolver waits over UDP.
func patience(attempt int) time.Duration {
	return time.Second << min(attempt, 2)
}

var errMangledCase = errors.New("response does not repeat the name as it was asked")

// ask puts the question for name to this resolver: over UDP, and over TCP when the
// response is cut or repeats the question in other letters.
func (s *server) ask(ctx context.Context, name hostname.Name, attempt int, f *filter) (*Answer, error) {
	q := newQuery(name, !s.plainCase.Load(), !s.noEDNS.Load())
	wire, err := s.overUDP(ctx, q, patience(attempt))
	if err == nil && q.edns && rejectsEDNS(wire) {
		s.noEDNS.Store(true)
		return s.ask(ctx, name, attempt, f)
	}
	if errors.Is(err, errMangledCase) || err == nil && truncated(wire) {
		mangled := err != nil
		wire, err = s.overTCP(ctx, q, patience(attempt))
		if err == nil && mangled && !q.exact(wire) {
			// The same over a transport that nobody can slip a packet into: it is this
			// resolver's way, not a forged response.
			s.plainCase.Store(true)
			s.log.Info("upstream resolver changes the case of names; queries to it carry less randomness", "resolver", s.addr.String())
		}
	}
	if err != nil {
		return nil, err
	}
	a, err := readAnswer(wire, name, f, time.Now())
	if err != nil {
		return nil, err
	}
	a.Server = s.addr
	return a, nil
}

// overUDP sends the query from one of the server's sockets.
func (s *server) overUDP(ctx context.Context, q *query, wait time.Duration) ([]byte, error) {
	sock, err := s.socket()
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	if err := sock.send(q); err != nil {
		return nil, err
	}
	select {
	case r := <-q.reply:
		return r.wire, r.err
	case <-timer.C:
		err = fmt.Errorf("no response within %s", wait)
	case <-ctx.Done():
		err = ctx.Err()
	}
	sock.forget(q)
	return nil, err
}

// socket picks a socket at random and replaces it when it is worn out.
func (s *server) socket() (*socket, error) {
	var b [1]byte
	random(b[:])
	slot := int(b[0]) % socketSlots
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	sock := s.sockets[slot]
	if sock != nil && sock.take(time.Now()) {
		return sock, nil
	}
	if sock != nil {
		sock.retire()
	}
	fresh, err := openSocket(s.addr)
	if err != nil {
		s.sockets[slot] = nil
		return nil, err
	}
	fresh.take(time.Now())
	s.sockets[slot] = fresh
	return fresh, nil
}

func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for i, sock := range s.sockets {
		if sock != nil {
			sock.fail(errClosed)
			s.sockets[i] = nil
		}
	}
}
