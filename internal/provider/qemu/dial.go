package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// A connection to the firewall's port counts once the server has sent
// something. Another one is tried every dialInterval, while those before it are
// waited for with growing patience: a silent one may be lost, because the guest
// had no network when QEMU asked it, or be answered late by a busy guest.
const (
	dialInterval    = 500 * time.Millisecond
	dialPatience    = 4 * time.Second
	dialPatienceMax = 15 * time.Second
)

// DialFirewall implements provider.Provider.
//
// QEMU accepts a connection on the host's port before the guest does, and before
// the guest even runs, so that connecting proves nothing.
func (p *Provider) DialFirewall(ctx context.Context, id provider.CellID) (net.Conn, error) {
	if err := errors.Join(ctx.Err(), id.Validate()); err != nil {
		return nil, err
	}
	attempts, cancel := context.WithCancel(ctx)
	defer cancel() // ends those that are not returned
	answered := make(chan net.Conn)
	for n := 0; ; n++ {
		// Every time: the machine may end while it is waited for, and may
		// come back on another port.
		address, err := endpoint(id)
		if err != nil {
			return nil, err
		}
		patience := min(dialPatience+time.Duration(n)*dialInterval, dialPatienceMax)
		go func() {
			conn, err := dialBanner(attempts, address, patience)
			if err != nil {
				p.log.Debug("waiting for the firewall's SSH", "error", err)
				return
			}
			select {
			case answered <- conn:
			case <-attempts.Done():
				conn.Close()
			}
		}()
		select {
		case conn := <-answered:
			return conn, nil
		case <-time.After(dialInterval):
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the firewall of cell %q to answer SSH: %w; `rootcell status` tells more", id.Instance, ctx.Err())
		}
	}
}

// endpoint is where a running firewall's SSH server is reached.
func endpoint(id provider.CellID) (string, error) {
	st, err := load(id)
	if err != nil {
		return "", err
	}
	pid, err := dirOf(id).holder(provider.RoleFirewall)
	if err != nil {
		return "", err
	}
	if pid == 0 || st.Port == 0 {
		status := absent(dirOf(id), provider.RoleFirewall, &st.Firewall)
		return "", fmt.Errorf("dialing the firewall of cell %q: %w: %s", id.Instance, provider.ErrNotRunning, statusText(status))
	}
	return loopback(st.Port), nil
}

func statusText(s provider.MachineStatus) string {
	if s.Detail != "" {
		return s.Detail
	}
	return string(s.State) + "; `rootcell up` starts it"
}

// dialBanner connects and waits for the first bytes.
func dialBanner(ctx context.Context, address string, patience time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: patience}
	conn, err := dialer.DialContext(ctx, "tcp4", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	first := make([]byte, 256)
	err = conn.SetReadDeadline(time.Now().Add(patience))
	n := 0
	if err == nil {
		n, err = conn.Read(first)
	}
	if !stop() || n == 0 {
		conn.Close()
		return nil, errors.Join(err, ctx.Err())
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, err
	}
	return &bannerConn{Conn: conn, first: first[:n]}, nil
}

// bannerConn gives back what was read while waiting for the server.
type bannerConn struct {
	net.Conn
	first []byte // not yet given back; like Read, for one reader at a time
}

func (c *bannerConn) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}

// CloseWrite lets the SSH transport end its half of the stream.
func (c *bannerConn) CloseWrite() error {
	return c.Conn.(*net.TCPConn).CloseWrite()
}
