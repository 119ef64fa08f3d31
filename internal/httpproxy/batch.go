package httpproxy

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

const (
	// batchLen bounds what waits to be written on an HTTP/2 connection, beside as much
	// that is being written.
	batchLen = 32 << 10
	// closeGrace is how long the last frames may take to go out when a connection closes.
	closeGrace = 200 * time.Millisecond
)

var batchBuffers = sync.Pool{New: func() any { return new([batchLen]byte) }}

// batchConn gathers the small writes of golang.org/x/net/http2, one or more for each frame of
// each stream, into full TLS records: while one batch is being written the next
// one fills. That is where most of the time of HTTP/2 goes otherwise. The
// bytes and their order are those that were written; nothing waits but for a write under way.
//
// A write that fails, or takes longer than stall, closes the connection; later calls return
// its error.
type batchConn struct {
	*tls.Conn
	raw   net.Conn // under the TLS
	stall time.Duration

	mu      sync.Mutex
	changed sync.Cond       // room in next, or the writer ended
	buf     *[batchLen]byte // holds next; nil when nothing waits
	n       int             // bytes of buf that wait; guarded by mu
	writing bool            // a writer runs; guarded by mu
	err     error           // of the first failed write; guarded by mu
}

func newBatchConn(c *tls.Conn, raw net.Conn, stall time.Duration) *batchConn {
	b := &batchConn{Conn: c, raw: raw, stall: stall}
	b.changed.L = &b.mu
	return b
}

// Write takes p and returns; it waits only while a whole batch waits already.
func (b *batchConn) Write(p []byte) (taken int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(p) > 0 {
		for b.n == batchLen && b.err == nil {
			b.changed.Wait()
		}
		if b.err != nil {
			return taken, b.err
		}
		if b.buf == nil {
			b.buf = batchBuffers.Get().(*[batchLen]byte)
		}
		n := copy(b.buf[b.n:], p)
		b.n += n
		taken += n
		p = p[n:]
		if !b.writing {
			b.writing = true
			go b.write()
		}
	}
	return taken, nil
}

// write empties the batch until nothing is left, and ends.
func (b *batchConn) write() {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.changed.Broadcast()
	for b.n > 0 && b.err == nil {
		buf, n := b.buf, b.n
		b.buf, b.n = nil, 0
		b.changed.Broadcast()
		b.mu.Unlock()
		_ = b.SetWriteDeadline(time.Now().Add(b.stall))
		_, err := b.Conn.Write(buf[:n])
		batchBuffers.Put(buf)
		b.mu.Lock()
		if err != nil {
			b.err = err
			_ = b.raw.Close()
		}
	}
	b.writing = false
}

// Close sends what waits, if that does not take long, and closes.
func (b *batchConn) Close() error {
	timer := time.AfterFunc(closeGrace, func() { _ = b.raw.Close() })
	b.mu.Lock()
	for b.writing {
		b.changed.Wait()
	}
	if b.err == nil {
		b.err = net.ErrClosed
	}
	b.mu.Unlock()
	timer.Stop()
	return b.Conn.Close()
}
