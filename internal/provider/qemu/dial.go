package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// DialFirewall implements provider.Provider.
//
// QEMU accepts a connection on the host's port before the guest does, and before
// the guest even runs. So a connection counts once the SSH server has sent
// something; one that stays silent is replaced, with more patience each time,
// because the server may come up between two of the guest's retries.
func (p *Provider) DialFirewall(ctx context.Context, id provider.CellID) (net.Conn, error) {
	if err := errors.Join(ctx.Err(), id.Validate()); err != nil {
		return nil, err
	}
	d := dirOf(id)
	patience := time.Second
	for {
		// Every time: the machine may end while it is waited for, and may
		// come back on another port.
		st, err := load(id)
		if err != nil {
			return nil, err
		}
		pid, err := d.holder(provider.RoleFirewall)
		if err != nil {
			return nil, err
		}
		if pid == 0 || st.Port == 0 {
			status := absent(d, provider.RoleFirewall, &st.Firewall)
			return nil, fmt.Errorf("dialing the firewall of cell %q: %w: %s", id.Instance, provider.ErrNotRunning, statusText(status))
		}
		conn, err := dialBanner(ctx, loopback(st.Port), patience)
		if err == nil {
			return conn, nil
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			patience = min(2*patience, 8*time.Second)
		}
		p.log.Debug("waiting for the firewall's SSH", "error", err)
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, fmt.Errorf("waiting for the firewall of cell %q to answer SSH: %w; `rootcell status` tells more", id.Instance, err)
		}
	}
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
