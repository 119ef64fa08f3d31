package sshx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// PortForward is one port of the host that leads to a port of the agent.
type PortForward struct {
	Local  int // on 127.0.0.1; 0 takes a free one
	Remote int // on the agent's 127.0.0.1
}

// ParsePortForward reads [LOCAL:]PORT. LOCAL is PORT when it is left out.
func ParsePortForward(s string) (PortForward, error) {
	local, remote, both := strings.Cut(s, ":")
	if !both {
		remote = local
	}
	l, errLocal := port(local, 0)
	r, errRemote := port(remote, 1)
	if errLocal != nil || errRemote != nil {
		return PortForward{}, fmt.Errorf("reading %q: write [LOCAL:]PORT with numbers from 1 to 65535, e.g. 8080 or 18080:8080", s)
	}
	return PortForward{Local: l, Remote: r}, nil
}

func port(s string, low int) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err == nil && (int(n) < low || s[0] == '+' || len(s) > 5) {
		err = strconv.ErrRange
	}
	return int(n), err
}

// Forwarding is a listener of the host whose connections go to the agent.
type Forwarding struct {
	Port int // the host's port on 127.0.0.1

	listener net.Listener
	running  sync.WaitGroup
	cancel   context.CancelFunc
}

// Forward listens on 127.0.0.1 of the host and carries every connection to
// the remote port on the server's 127.0.0.1, until Close or the end of ctx or of
// the connection. An error while a connection is carried goes to failed, which
// may be nil and may be called from several goroutines.
func (c *Client) Forward(ctx context.Context, forward PortForward, failed func(error)) (*Forwarding, error) {
	// Invariant: other machines cannot reach the agent through the host
	// (TestForwardListensOnLoopbackOnly).
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(forward.Local))
	listener, err := net.Listen("tcp4", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("forwarding: port %d of this machine is taken; choose another with LOCAL:%d", forward.Local, forward.Remote)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("forwarding: port %d of this machine needs privileges; choose one from 1024 with LOCAL:%d", forward.Local, forward.Remote)
	case err != nil:
		return nil, fmt.Errorf("forwarding port %d: %w", forward.Local, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &Forwarding{Port: listener.Addr().(*net.TCPAddr).Port, listener: listener, cancel: cancel}
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	f.running.Go(func() {
		defer stop()
		f.accept(ctx, c, forward.Remote, failed)
	})
	f.running.Go(func() {
		select {
		case <-c.Done():
			listener.Close()
		case <-ctx.Done():
		}
	})
	return f, nil
}

// Close stops listening, cuts what is being carried and waits for that.
func (f *Forwarding) Close() error {
	f.cancel()
	err := f.listener.Close()
	f.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (f *Forwarding) accept(ctx context.Context, c *Client, remote int, failed func(error)) {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.running.Go(func() {
			defer conn.Close()
			target, err := c.Dial(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(remote)))
			if err != nil {
				if failed != nil {
					failed(fmt.Errorf("forwarding to port %d of the agent: %w", remote, err))
				}
				return
			}
			Splice(ctx, conn, target)
		})
	}
}

// Splice carries bytes both ways between two connections until both directions
// have ended or ctx is done, and closes both. The end of one direction is passed
// on as such where the connection can express it.
func Splice(ctx context.Context, a, b io.ReadWriteCloser) {
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	defer a.Close()
	defer b.Close()
	var directions sync.WaitGroup
	carry := func(to io.WriteCloser, from io.Reader) {
		if _, err := io.Copy(to, from); err != nil {
			to.Close()
			return
		}
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // an error means that it has ended anyway
			return
		}
		to.Close()
	}
	directions.Go(func() { carry(a, b) })
	directions.Go(func() { carry(b, a) })
	directions.Wait()
}
