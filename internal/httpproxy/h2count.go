package httpproxy

import (
	"encoding/binary"
	"sync/atomic"
)

// streamCounter counts the streams that an HTTP/2 client opens: net/http2 refuses
// those with a malformed head without telling anybody. All but opened belongs to
// the one goroutine that reads.
type streamCounter struct {
	*batchConn
	opened atomic.Int64

	skip int // bytes up to the next frame's head
	head [frameHead]byte
	have int // bytes of head
	last uint32
}

// frameHead is the length of a frame's head (RFC 9113, 4.1).
const frameHead = 9

// Read implements io.Reader.
func (c *streamCounter) Read(p []byte) (int, error) {
	n, err := c.batchConn.Read(p)
	c.count(p[:n])
	return n, err
}

func (c *streamCounter) count(p []byte) {
	for len(p) > 0 {
		if c.skip > 0 {
			n := min(c.skip, len(p))
			c.skip -= n
			p = p[n:]
			continue
		}
		n := copy(c.head[c.have:], p)
		c.have += n
		p = p[n:]
		if c.have < frameHead {
			return
		}
		c.have = 0
		c.skip = int(binary.BigEndian.Uint32(c.head[:]) >> 8)
		const headers = 1
		if id := binary.BigEndian.Uint32(c.head[5:]) &^ (1 << 31); c.head[3] == headers && id > c.last {
			c.last = id
			c.opened.Add(1)
		}
	}
}
