package dnsproxy

import (
	"bytes"
	"net"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

const (
	// batch is how many messages one system call moves at most.
	batch = 32
	// maxQuery is the longest message read over UDP; no query that is answered comes
	// near it.
	maxQuery = 1500
)

// serveUDP answers what arrives on conn until it is closed. What is known is
// answered here, in the order of arrival; what is not waits in a goroutine.
func (s *Server) serveUDP(conn *net.UDPConn) {
	pc := ipv4.NewPacketConn(conn)
	in, out := make([]ipv4.Message, batch), make([]ipv4.Message, batch)
	for i := range in {
		in[i].Buffers = [][]byte{make([]byte, maxQuery)}
		out[i].Buffers = [][]byte{make([]byte, 0, maxUDP)}
	}
	var trouble backoff
	for {
		n, err := pc.ReadBatch(in, 0)
		if err != nil {
			if closedSocket(err) {
				return
			}
			s.log.Error("reading DNS queries; trying again", "error", err)
			trouble.pause(s.ctx)
			continue
		}
		trouble = 0
		now := time.Now()
		answers := 0
		for i := range n {
			client, ok := in[i].Addr.(*net.UDPAddr)
			if !ok {
				continue
			}
			buf := out[answers].Buffers[0][:0]
			if response := s.oneUDP(conn, client, in[i].Buffers[0][:in[i].N], buf, now); len(response) > 0 {
				out[answers].Buffers[0] = response
				out[answers].Addr = client
				answers++
			}
		}
		for sent := 0; sent < answers; {
			n, err := pc.WriteBatch(out[sent:answers], 0)
			if err != nil {
				n = 1 // this client cannot be reached; the others can
			}
			sent += n
		}
	}
}

// oneUDP handles a message and returns what to send at once.
func (s *Server) oneUDP(conn *net.UDPConn, client *net.UDPAddr, msg, buf []byte, now time.Time) (response []byte) {
	defer s.survive(&response)
	x := exchange{client: client.AddrPort(), proto: 'u', started: now}
	response, wait := s.handle(&x, msg, buf)
	if wait {
		return s.later(conn, x, buf)
	}
	return response
}

// later finishes the exchange in a goroutine, or refuses when too many wait.
func (s *Server) later(conn *net.UDPConn, x exchange, buf []byte) []byte {
	if !s.enter() {
		return s.busy(&x, buf)
	}
	// The message's buffer is read into again before the goroutine is done.
	x.question = bytes.Clone(x.question)
	x.query.name = x.question[:len(x.question)-4]
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		defer s.leave()
		if response := s.finishSafely(&x, make([]byte, 0, minUDP)); len(response) > 0 {
			// An error means that the socket is closed or the client has gone.
			_, _ = conn.WriteToUDPAddrPort(response, x.client)
		}
	}()
	return nil
}

// enter takes one of the places for queries that wait for upstream.
func (s *Server) enter() bool {
	select {
	case s.lookups <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *Server) leave() { <-s.lookups }

// busy appends the response of a server that has too much to do.
func (s *Server) busy(x *exchange, dst []byte) []byte {
	const notReady = 14
	return s.refuse(x, dst, dns.RcodeServerFailure, policy.Limit, &extended{notReady, "rootcell: too many queries are waiting for upstream"})
}

// finishSafely is finish for goroutines.
func (s *Server) finishSafely(x *exchange, dst []byte) (response []byte) {
	defer s.survive(&response)
	return s.finish(s.ctx, x, dst)
}

// survive, deferred, makes a panic cost one query its response and nothing else.
func (s *Server) survive(response *[]byte) {
	if r := recover(); r != nil {
		s.panics.Add(1)
		s.log.Error("panic while answering a DNS query", "panic", r)
		*response = nil
	}
}
