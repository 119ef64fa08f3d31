package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// A socket's port is used for so many queries or so long, then for no more.
	socketUses = 512
	socketAge  = 30 * time.Second
	// socketPending bounds the queries waiting at one socket, so that a guessed id
	// seldom hits one.
	socketPending = 256
	// maxForged is the number of responses with a wrong id or question after which
	// a socket is given up: somebody is guessing.
	maxForged = 256
)

// socket is a connected UDP socket on a port that the kernel chose. Connected, it
// hears the resolver only, and is told at once when nobody listens there.
type socket struct {
	conn *net.UDPConn
	born time.Time

	mu      sync.Mutex
	uses    int
	retired bool
	err     error // set when the socket is done for
	waiting map[uint16]*query
}

func openSocket(server netip.AddrPort) (*socket, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, born: time.Now(), waiting: map[uint16]*query{}}
	go s.read()
	return s, nil
}

// take reserves the socket for one more query. It is false when the socket is
// worn out.
func (s *socket) take(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.retired || s.uses >= socketUses || now.Sub(s.born) > socketAge {
		return false
	}
	s.uses++
	return true
}

// retire closes the socket as soon as nobody waits at it.
func (s *socket) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
	if len(s.waiting) == 0 {
		s.conn.Close()
	}
}

// send sends the query; the response goes to q.reply.
func (s *socket) send(q *query) error {
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return s.err
	}
	if len(s.waiting) >= socketPending {
		s.mu.Unlock()
		return ErrBusy
	}
	for s.waiting[q.id] != nil {
		var b [2]byte
		random(b[:])
		q.setID(binary.BigEndian.Uint16(b[:]))
	}
	s.waiting[q.id] = q
	s.mu.Unlock()
	if _, err := s.conn.Write(q.wire); err != nil {
		s.forget(q)
		return err
	}
	return nil
}

// forget takes a query back that is no longer waited for.
func (s *socket) forget(q *query) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[q.id] == q {
		s.remove(q.id)
	}
}

// remove deletes a waiting query; s.mu is held.
func (s *socket) remove(id uint16) {
	delete(s.waiting, id)
	if s.retired && len(s.waiting) == 0 {
		s.conn.Close()
	}
}

// fail ends the socket and every query that waits at it.
func (s *socket) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	for id, q := range s.waiting {
		q.reply <- reply{err: s.err}
		delete(s.waiting, id)
	}
	s.conn.Close()
}

// read hands responses to the queries that wait for them, until the socket is
// closed.
func (s *socket) read() {
	buf := make([]byte, maxUDP+1)
	forged := 0
	for {
		n, err := s.conn.Read(buf)
		if err != nil {
			s.fail(err)
			return
		}
		if n > maxUDP {
			buf[2] |= flagTC // longer than was offered, and perhaps than buf: ask again over TCP
		}
		if !s.deliver(buf[:n]) {
			if forged++; forged == maxForged {
				s.fail(errors.New("too many responses that answer nothing"))
				return
			}
		}
	}
}

// deliver passes a response on. It is false when nobody waits for it.
//
// Invariant: a response counts only with the id and the question of a query that
// waits at this very socket (TestForgedResponsesAreIgnored).
func (s *socket) deliver(wire []byte) bool {
	if len(wire) < headerLen {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.waiting[binary.BigEndian.Uint16(wire)]
	if q == nil || !q.matches(wire) {
		return false
	}
	s.remove(q.id)
	if !q.exact(wire) {
		q.reply <- reply{err: errMangledCase}
		return true
	}
	q.reply <- reply{wire: slices.Clone(wire)}
	return true
}

// overTCP sends the query on a connection of its own (RFC 7766).
func (s *server) overTCP(ctx context.Context, q *query, wait time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	msg := binary.BigEndian.AppendUint16(nil, uint16(len(q.wire)))
	if _, err := conn.Write(append(msg, q.wire...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	wire := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, wire); err != nil {
		return nil, err
	}
	if !q.matches(wire) {
		return nil, fmt.Errorf("response over TCP answers another question")
	}
	return wire, nil
}
