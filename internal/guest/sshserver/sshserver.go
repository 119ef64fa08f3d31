// Package sshserver is the firewall guest's SSH server, the host's only way
// into a cell. It knows one user, public keys alone, and two things to ask for:
// a fixed set of commands, and a byte stream to the agent's SSH server. There
// is no shell, no terminal, no environment, no other forwarding.
package sshserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// User is the only login name.
const User = "rootcell"

const (
	handshakeTimeout = 30 * time.Second // slow: a machine under software emulation
	dialTimeout      = 10 * time.Second
	keepaliveEvery   = 30 * time.Second
	keepaliveMisses  = 3
	maxConnections   = 64
	maxUnauthorized  = 16  // connections in their handshake
	maxChannels      = 128 // open on one connection
)

// Runner runs one command line of the fixed set and returns its exit status.
// stdin ends when the client closes it; ctx ends when the channel does.
type Runner func(ctx context.Context, line string, stdin io.Reader, stdout, stderr io.Writer) int

// Options is what a Server needs. All fields are required.
type Options struct {
	HostKey    ssh.Signer
	Authorized []ssh.PublicKey
	Agent      string // host:port of the agent's SSH server, as clients must spell it
	Dial       func(ctx context.Context, network, address string) (net.Conn, error)
	Run        Runner
	Log        *slog.Logger
}

// Server serves SSH connections. Make it with New.
type Server struct {
	opts       Options
	config     *ssh.ServerConfig
	agentHost  string
	agentPort  uint32
	slots      chan struct{}
	handshakes chan struct{}
}

// New checks o and returns a server.
func New(o Options) (*Server, error) {
	host, port, err := net.SplitHostPort(o.Agent)
	if err != nil {
		return nil, fmt.Errorf("parsing agent address %q: %w", o.Agent, err)
	}
	var number uint32
	if _, err := fmt.Sscanf(port, "%d", &number); err != nil {
		return nil, fmt.Errorf("parsing agent port %q: %w", port, err)
	}
	if len(o.Authorized) == 0 {
		return nil, errors.New("no authorized key: nobody could log in")
	}
	s := &Server{
		opts: o, agentHost: host, agentPort: number,
		slots: make(chan struct{}, maxConnections), handshakes: make(chan struct{}, maxUnauthorized),
	}
	s.config = &ssh.ServerConfig{
		MaxAuthTries:      3,
		ServerVersion:     "SSH-2.0-rootcell",
		PublicKeyCallback: s.authorize,
	}
	s.config.AddHostKey(o.HostKey)
	return s, nil
}

// authorize accepts exactly the keys it was given, for exactly one user.
func (s *Server) authorize(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	known := slices.ContainsFunc(s.opts.Authorized, func(k ssh.PublicKey) bool {
		return k.Type() == key.Type() && string(k.Marshal()) == string(key.Marshal())
	})
	if meta.User() != User || !known {
		return nil, errors.New("not authorized")
	}
	return &ssh.Permissions{}, nil
}

// Serve accepts connections on l until ctx ends, and closes l. Passing errors
// of Accept (such as no free file descriptor) do not end it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accepting SSH connections: %w", err)
		}
		if err != nil {
			s.opts.Log.Warn("accepting an SSH connection", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-s.slots }()
				s.serve(ctx, conn)
			})
		default:
			s.opts.Log.Warn("refusing an SSH connection: too many are open", "limit", maxConnections)
			conn.Close()
		}
	}
}

func (s *Server) serve(ctx context.Context, raw net.Conn) {
	defer raw.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { raw.Close() })()

	conn, channels, requests, err := s.handshake(raw)
	if err != nil {
		s.opts.Log.Info("SSH handshake", "peer", raw.RemoteAddr().String(), "err", err)
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests) // refuses every global request, tcpip-forward included
	go s.keepalive(ctx, cancel, conn)

	open := make(chan struct{}, maxChannels)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for request := range channels {
		select {
		case open <- struct{}{}:
		default:
			reject(request, ssh.ResourceShortage, "too many channels are open")
			continue
		}
		wg.Go(func() {
			defer func() { <-open }()
			s.channel(ctx, request)
		})
	}
}

func (s *Server) handshake(raw net.Conn) (*ssh.ServerConn, <-chan ssh.NewChannel, <-chan *ssh.Request, error) {
	select {
	case s.handshakes <- struct{}{}:
		defer func() { <-s.handshakes }()
	default:
		return nil, nil, nil, errors.New("too many handshakes at once")
	}
	if err := raw.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, nil, nil, err
	}
	conn, channels, requests, err := ssh.NewServerConn(raw, s.config)
	if err != nil {
		return nil, nil, nil, err
	}
	return conn, channels, requests, raw.SetDeadline(time.Time{})
}

// keepalive ends a connection whose other side no longer answers.
func (s *Server) keepalive(ctx context.Context, dead func(), conn ssh.Conn) {
	tick := time.NewTicker(keepaliveEvery)
	defer tick.Stop()
	answered := make(chan struct{}, 1)
	misses, waiting := 0, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-answered:
			misses, waiting = 0, false
		case <-tick.C:
			if waiting {
				if misses++; misses >= keepaliveMisses {
					dead()
					return
				}
				continue
			}
			waiting = true
			go func() {
				// Any answer, a refusal too, is a sign of life.
				if _, _, err := conn.SendRequest("keepalive@openssh.com", true, nil); err == nil {
					answered <- struct{}{}
				}
			}()
		}
	}
}

// Invariant: two kinds of channel exist, and a third is refused (TestChannels).
func (s *Server) channel(ctx context.Context, request ssh.NewChannel) {
	switch request.ChannelType() {
	case "session":
		s.session(ctx, request)
	case "direct-tcpip":
		s.direct(ctx, request)
	default:
		reject(request, ssh.UnknownChannelType, "this server opens sessions and the agent's SSH port only")
	}
}

func reject(request ssh.NewChannel, reason ssh.RejectionReason, text string) {
	// An error means that the connection is gone, and with it the request.
	_ = request.Reject(reason, text)
}
