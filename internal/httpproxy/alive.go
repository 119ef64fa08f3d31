package httpproxy

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// usable reports whether an idle connection may carry another request: it
// belongs to the policy in force, and its server neither closed it nor sent
// anything. Bytes that no request asked for would be taken for its answer.
func (u *upstreamConn) usable(generation uint64) bool {
	if u.dead.Load() || u.generation != generation || u.br.Buffered() > 0 {
		return false
	}
	sc, ok := u.link.Conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	silent := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		silent = errors.Is(err, unix.EAGAIN)
		return true
	})
	return err == nil && silent
}
