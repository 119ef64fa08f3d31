package dnsproxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sockets are what a Server serves on.
type Sockets struct {
	UDP []*net.UDPConn // several on one address share its queries
	TCP net.Listener   // nil: no TCP
}

// Close closes them all.
func (k *Sockets) Close() {
	for _, conn := range k.UDP {
		conn.Close()
	}
	if k.TCP != nil {
		k.TCP.Close()
	}
}

// receiveBuffer holds the queries of a burst until they are read.
const receiveBuffer = 1 << 20

// Listen opens a TCP listener and UDP sockets, one for each processor, on addr.
// With port 0 all of them get the same port.
func Listen(ctx context.Context, addr netip.AddrPort) (*Sockets, error) {
	k := &Sockets{}
	// TCP first: it refuses an address that another daemon serves, where UDP would
	// share it.
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(ctx, "tcp4", addr.String())
	if err != nil {
		return nil, fmt.Errorf("listening for DNS on tcp %s: %w", addr, err)
	}
	k.TCP = l
	addr = l.Addr().(*net.TCPAddr).AddrPort()
	config.Control = reusePort
	for range max(1, runtime.GOMAXPROCS(0)) {
		conn, err := config.ListenPacket(ctx, "udp4", addr.String())
		if err != nil {
			k.Close()
			return nil, fmt.Errorf("listening for DNS on udp %s: %w", addr, err)
		}
		udp := conn.(*net.UDPConn)
		// Not fatal: the kernel gives what its limit allows.
		_ = udp.SetReadBuffer(receiveBuffer)
		k.UDP = append(k.UDP, udp)
	}
	return k, nil
}

// reusePort lets several sockets of this process share the address, so that each
// processor reads its own queue. The kernel admits only sockets of the same user.
func reusePort(_, _ string, c syscall.RawConn) error {
	var serr error
	err := c.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return err
	}
	return serr
}
