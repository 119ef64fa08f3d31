package httpproxy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/rootcell-ai/rootcell/internal/httpproxy/http1"
)

type bodySource = *bufio.Reader

// headFirst sends a head together with the first bytes of its body.
type headFirst struct {
	w       io.Writer
	head    []byte
	written int64
}

func (h *headFirst) Write(p []byte) (int, error) {
	if h.head == nil {
		n, err := h.w.Write(p)
		h.written += int64(n)
		return n, err
	}
	head := h.head
	h.head = nil
	n, err := h.w.Write(append(head[:len(head):len(head)], p...))
	h.written += int64(n)
	return max(0, n-len(head)), err
}

// flush sends the head if no body has come.
func (h *headFirst) flush() error {
	if h.head == nil {
		return nil
	}
	n, err := h.w.Write(h.head)
	h.head = nil
	h.written += int64(n)
	return err
}

// bodyWriter sends a request's body. It gives up on a server that takes nothing
// for too long, and at once on one that has declined the body.
type bodyWriter struct {
	x  *exchange
	up *upstreamConn
}

func (w bodyWriter) Write(p []byte) (int, error) {
	if w.x.unwanted.Load() {
		return 0, errUnwanted
	}
	_ = w.up.SetWriteDeadline(time.Now().Add(w.x.s.srv.limits.Stall))
	return w.up.Write(p)
}

var errUnwanted = errors.New("the server answered before it wanted the body")

// tunnel relays a WebSocket after its handshake until both directions are
// closed. A closing alert closes one direction; a FIN or a reset ends both.
func (x *exchange) tunnel(res *http1.Response, up *upstreamConn) {
	s := x.s
	defer up.close()
	if _, err := s.client.Write(res.Raw); err != nil {
		return
	}
	var wg sync.WaitGroup
	var sent int64
	sentAll := make(chan struct{})
	wg.Go(func() {
		var err error
		sent, err = relay(up.Conn, s.br)
		close(sentAll)
		if err == nil {
			var b [1]byte
			_, _ = s.raw.Read(b[:]) // until the FIN, or the end of the tunnel
		}
		x.abandon()
	})
	got, err := relay(s.client, up.br)
	if err == nil && up.saidGoodbye() {
		// The server is done; what the client still has to say is not waited for
		// without end.
		_ = s.raw.SetReadDeadline(time.Now().Add(s.srv.limits.Idle))
		<-sentAll
	}
	x.abandon()
	_ = s.raw.Close()
	wg.Wait()
	x.out.up, x.out.down = x.sent.Load()+sent, got+int64(len(res.Raw))
	x.out.denial = s.revocation(x.revoked.Load())
}

// relay copies until the clean end of src and passes that end on.
func relay(dst *tls.Conn, src *bufio.Reader) (int64, error) {
	n, err := http1.CopyBody(dst, src, http1.CloseBody, 0, http1.Limits{})
	if err != nil {
		return n, err
	}
	if err := dst.CloseWrite(); err != nil && !errors.Is(err, io.EOF) {
		return n, err
	}
	return n, nil
}
