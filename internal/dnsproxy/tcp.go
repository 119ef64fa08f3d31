package dnsproxy

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

const (
	// maxStreamQuery is the longest query read over TCP; a longer one ends the
	// connection.
	maxStreamQuery = 4096
	// maxPerConn is how many queries one connection may carry.
	maxPerConn = 10000
	// maxStreamResponse is the longest response over TCP (RFC 1035).
	maxStreamResponse = 65535
)

// serveTCP accepts connections until l is closed. Trouble with accepting, such as
// too few file descriptors, ends nothing.
func (s *Server) serveTCP(l net.Listener) {
	var trouble backoff
	for {
		conn, err := l.Accept()
		if err != nil {
			if closedSocket(err) {
				return
			}
			s.log.Error("accepting DNS connections; trying again", "error", err)
			trouble.pause(s.ctx)
			continue
		}
		trouble = 0
		select {
		case s.tcpConns <- struct{}{}:
		default:
			s.recordRefused(conn)
			conn.Close()
			continue
		}
		if !s.track(conn) {
			conn.Close()
			return
		}
		go func() {
			defer func() { <-s.tcpConns }()
			defer s.untrack(conn)
			defer conn.Close()
			s.serveConn(conn)
		}()
	}
}

// serveConn answers the queries of one connection, one after the other.
func (s *Server) serveConn(conn net.Conn) {
	client := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	in := make([]byte, 0, minUDP)
	out := make([]byte, 0, minUDP)
	for range maxPerConn {
		// One deadline for silence and for the whole query: a client that sends a byte
		// at a time gains nothing.
		if conn.SetDeadline(time.Now().Add(s.limits.TCPIdle)) != nil {
			return
		}
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n > maxStreamQuery {
			return
		}
		if cap(in) < n {
			in = make([]byte, 0, maxStreamQuery)
		}
		in = in[:n]
		if _, err := io.ReadFull(conn, in); err != nil {
			return
		}
		response := s.oneTCP(client, in, append(out[:0], 0, 0))
		if len(response) <= 2 {
			return
		}
		out = response
		binary.BigEndian.PutUint16(response, uint16(len(response)-2))
		if conn.SetDeadline(time.Now().Add(s.limits.TCPIdle)) != nil {
			return
		}
		if _, err := conn.Write(response); err != nil {
			return
		}
	}
}

// oneTCP handles a message and appends the response to buf, which holds room for
// its length.
func (s *Server) oneTCP(client netip.AddrPort, msg, buf []byte) (response []byte) {
	defer s.survive(&response)
	x := exchange{client: client, proto: 't', started: time.Now(), limit: maxStreamResponse}
	response, wait := s.handle(&x, msg, buf)
	if !wait {
		return response
	}
	if !s.enter() {
		return s.busy(&x, buf)
	}
	defer s.leave()
	return s.finish(s.ctx, &x, buf)
}

// recordRefused notes a connection above the limit.
func (s *Server) recordRefused(conn net.Conn) {
	x := exchange{client: conn.RemoteAddr().(*net.TCPAddr).AddrPort(), proto: 't', started: time.Now()}
	x.snapshot = s.gate.Current()
	x.decision = policy.Deny(policy.Limit)
	s.record(&x, 0, 0)
}

// backoff spaces retries, longer with each.
type backoff time.Duration

func (b *backoff) pause(ctx context.Context) {
	*b = min(max(*b*2, backoff(5*time.Millisecond)), backoff(time.Second))
	select {
	case <-time.After(time.Duration(*b)):
	case <-ctx.Done():
	}
}
