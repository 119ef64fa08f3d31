package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/rootcell-ai/rootcell/internal/hostname"
)

// Addresses returns the IPv4 addresses of name that may be dialled, at least one.
// Errors: *SpecialAddressError, *NotFoundError, or what Lookup returns.
func (r *Resolver) Addresses(ctx context.Context, name hostname.Name) ([]netip.Addr, error) {
	a, err := r.Lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := a.problem(name); err != nil {
		return nil, err
	}
	return slices.Clone(a.Addrs), nil
}

// headStart is what an address gets before the next one is tried beside it
// (RFC 8305 section 5).
const headStart = 250 * time.Millisecond

// Dial resolves name and connects to the first of its addresses that accepts, on
// the given port over TCP. Errors are those of Addresses, and *net.OpError inside.
//
// Invariant: the addresses dialled are the ones that were checked; nothing is
// resolved between check and dial (TestDialUsesTheAddressesThatWereChecked).
func (r *Resolver) Dial(ctx context.Context, name hostname.Name, port uint16) (net.Conn, error) {
	addrs, err := r.Addresses(ctx, name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.dialTimeout)
	defer cancel()
	conn, err := dialAny(ctx, addrs, port)
	if err != nil {
		// Perhaps the host has moved: the next attempt asks again.
		r.cache.remove(name)
		return nil, fmt.Errorf("dialing %q: %w", name, err)
	}
	return conn, nil
}

type dialed struct {
	conn net.Conn
	err  error
}

// dialAny starts on the addresses one after the other, the next one when the
// previous failed or had its head start, and returns the first connection.
func dialAny(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	if len(addrs) == 1 {
		return dialOne(ctx, addrs[0], port)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialed, len(addrs))
	timer := time.NewTimer(0)
	defer timer.Stop()
	started, running := 0, 0
	var firstErr error
	for {
		var next <-chan time.Time
		if started < len(addrs) {
			next = timer.C
		} else if running == 0 {
			return nil, firstErr
		}
		select {
		case <-next:
			addr := addrs[started]
			started++
			running++
			go func() {
				conn, err := dialOne(ctx, addr, port)
				results <- dialed{conn, err}
			}()
			timer.Reset(headStart)
		case d := <-results:
			running--
			if d.err == nil {
				go closeRest(results, running)
				return d.conn, nil
			}
			if firstErr == nil {
				firstErr = d.err
			}
			timer.Reset(0)
		}
	}
}

// closeRest closes the connections that lost the race.
func closeRest(results <-chan dialed, n int) {
	for range n {
		if d := <-results; d.err == nil {
			d.conn.Close()
		}
	}
}

func dialOne(ctx context.Context, addr netip.Addr, port uint16) (net.Conn, error) {
	want := netip.AddrPortFrom(addr, port).String()
	d := net.Dialer{
		// The last look, on what the kernel is about to be given.
		Control: func(_, address string, _ syscall.RawConn) error {
			if address != want {
				return fmt.Errorf("checked %s, but %s would be dialed", want, address)
			}
			return nil
		},
	}
	conn, err := d.DialContext(ctx, "tcp4", want)
	if err != nil {
		return nil, err
	}
	if loops(conn) {
		conn.Close()
		return nil, fmt.Errorf("%s is this machine's own address", addr)
	}
	return conn, nil
}

// loops reports whether a connection ends on this machine: then the kernel gave
// it the same address on both sides. It holds for addresses that came after
// Config.Deny was written; loopback is Deny's and specialaddr's.
func loops(conn net.Conn) bool {
	local, ok1 := conn.LocalAddr().(*net.TCPAddr)
	remote, ok2 := conn.RemoteAddr().(*net.TCPAddr)
	return ok1 && ok2 && local.IP.Equal(remote.IP) && !remote.IP.IsLoopback()
}
