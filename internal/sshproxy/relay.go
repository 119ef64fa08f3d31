package sshproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// relay copies between client and server until both directions have ended, one
// has failed, or nothing has moved in either for the idle time. The end of one
// direction is passed on as a half-close. It returns the octets moved towards the
// server and towards the client.
//
// Between TCP connections io.Copy moves the data inside the kernel.
func relay(client, server net.Conn, idle time.Duration) (up, down int64) {
	r := &tunnel{round: idle / 2}
	r.touch()
	var wg sync.WaitGroup
	wg.Go(func() { up = r.copy(server, client) })
	wg.Go(func() { down = r.copy(client, server) })
	wg.Wait()
	return up, down
}

type tunnel struct {
	round  time.Duration // half the idle time
	active atomic.Int64  // when data last moved, as far as known; Unix nanoseconds
}

func (t *tunnel) touch() { t.active.Store(time.Now().UnixNano()) }

// copy moves one direction. A read deadline wakes it once a round to see whether
// anything has moved in the last two: the other direction may not have told yet
// what it moved in this one.
func (t *tunnel) copy(dst, src net.Conn) (moved int64) {
	for {
		start := time.Now()
		_ = src.SetReadDeadline(start.Add(t.round))
		_ = dst.SetWriteDeadline(start.Add(2 * t.round))
		n, err := io.Copy(dst, src)
		moved += n
		if n > 0 {
			t.touch()
		}
		if err == nil {
			closeWrite(dst)
			return moved
		}
		// After a write that timed out data would be missing. The two deadlines can be
		// told apart by the clock, but not by the error of a copy inside the kernel.
		woken := errors.Is(err, os.ErrDeadlineExceeded) && time.Since(start) < 2*t.round
		if !woken || time.Since(time.Unix(0, t.active.Load())) >= 2*t.round {
			dst.Close()
			src.Close()
			return moved
		}
	}
}

// closeWrite passes on the end of a stream.
func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	conn.Close()
}
