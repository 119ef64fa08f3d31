package sshx

import (
	"context"
	"net"
	"testing"

	"golang.org/x/crypto/ssh"
)

// testServer is an SSH server of this process, for what a real one does not do.
type testServer struct {
	config *ssh.ServerConfig
	host   ssh.Signer
	// session is called for every session channel; nil refuses them.
	session func(ssh.Channel, <-chan *ssh.Request)
	// connected is called with every connection; may be nil.
	connected func(*ssh.ServerConn)
	// wrap changes the client's side of the connection; may be nil.
	wrap func(net.Conn) net.Conn
}

func newTestServer(t *testing.T) *testServer {
	s := &testServer{config: &ssh.ServerConfig{NoClientAuth: true}, host: newKey(t)}
	s.config.AddHostKey(s.host)
	return s
}

func (s *testServer) options(t *testing.T) Options {
	return Options{
		User:    "agent",
		Key:     newKey(t),
		HostKey: s.host.PublicKey(),
		Dial: func(ctx context.Context) (net.Conn, error) {
			listener, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			defer listener.Close()
			client, err := new(net.Dialer).DialContext(ctx, "tcp4", listener.Addr().String())
			if err != nil {
				return nil, err
			}
			conn, err := listener.Accept()
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { conn.Close() })
			go s.serve(conn)
			if s.wrap != nil {
				client = s.wrap(client)
			}
			return client, nil
		},
	}
}

func (s *testServer) serve(conn net.Conn) {
	server, channels, requests, err := ssh.NewServerConn(conn, s.config)
	if err != nil {
		conn.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	if s.connected != nil {
		go s.connected(server)
	}
	for channel := range channels {
		if channel.ChannelType() != "session" || s.session == nil {
			_ = channel.Reject(ssh.Prohibited, "not here")
			continue
		}
		if accepted, requests, err := channel.Accept(); err == nil {
			go s.session(accepted, requests)
		}
	}
}

// exit ends a session as a command that exits does.
func exit(channel ssh.Channel, status uint32) {
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
	_ = channel.Close()
}
