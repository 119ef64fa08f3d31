package sshx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestConnectRefusesAnyOtherHostKey(t *testing.T) {
	key := newKey(t)
	machine := startSSHD(t, key)
	options := machine.options(key)
	options.HostKey = newKey(t).PublicKey()
	if _, err := Connect(t.Context(), options); !errors.Is(err, ErrHostKey) {
		t.Errorf("Connect = %v, want ErrHostKey", err)
	}
	options.HostKey = nil
	if _, err := Connect(t.Context(), options); err == nil {
		t.Error("a connection without a pinned key was made")
	}
}

func TestConnectRefusesAnotherUsersKey(t *testing.T) {
	machine := startSSHD(t, newKey(t))
	if _, err := Connect(t.Context(), machine.options(newKey(t))); err == nil {
		t.Error("a key that the server does not know was let in")
	}
}

func TestThrough(t *testing.T) {
	key := newKey(t)
	firewall, agent := startSSHD(t, key), startSSHD(t, key)
	outer := connect(t, firewall.options(key))
	options := agent.options(key)
	options.Dial = nil
	inner, err := outer.Through(t.Context(), agent.addr.String(), options)
	if err != nil {
		t.Fatal(err)
	}
	out, err := inner.Output(t.Context(), 100, "echo", "inside")
	if err != nil || string(out) != "inside\n" {
		t.Errorf("Output = %q, %v", out, err)
	}
	options.HostKey = firewall.hostKey
	if _, err := outer.Through(t.Context(), agent.addr.String(), options); !errors.Is(err, ErrHostKey) {
		t.Errorf("the inner host key is not checked: %v", err)
	}
	outer.Close()
	<-inner.Done()
	if err := inner.Close(); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		t.Errorf("closing after the outer connection: %v", err)
	}
}

func TestOldAlgorithmsAreRefused(t *testing.T) {
	tests := map[string]func(*ssh.ServerConfig){
		"a key exchange with SHA-1": func(c *ssh.ServerConfig) { c.KeyExchanges = []string{ssh.InsecureKeyExchangeDH14SHA1} },
		"CBC":                       func(c *ssh.ServerConfig) { c.Ciphers = []string{ssh.InsecureCipherAES128CBC} },
		"CTR, which Terrapin is not about, but nobody needs": func(c *ssh.ServerConfig) { c.Ciphers = []string{ssh.CipherAES128CTR} },
	}
	for name, weaken := range tests {
		t.Run(name, func(t *testing.T) {
			server := newTestServer(t)
			weaken(server.config)
			var negotiation *ssh.AlgorithmNegotiationError
			if _, err := Connect(t.Context(), server.options(t)); !errors.As(err, &negotiation) {
				t.Errorf("Connect = %v, want a failed negotiation", err)
			}
		})
	}
}

func TestServerCannotOpenChannels(t *testing.T) {
	results := make(chan error)
	server := newTestServer(t)
	server.connected = func(conn *ssh.ServerConn) {
		for _, kind := range []string{"forwarded-tcpip", "forwarded-streamlocal@openssh.com", "x11", "auth-agent@openssh.com", "session", "direct-tcpip"} {
			_, _, err := conn.OpenChannel(kind, ssh.Marshal(struct {
				Host       string
				Port       uint32
				Origin     string
				OriginPort uint32
			}{"127.0.0.1", 22, "127.0.0.1", 1}))
			var refused *ssh.OpenChannelError
			if !errors.As(err, &refused) || refused.Reason != ssh.Prohibited {
				results <- fmt.Errorf("channel %s: %v, want it prohibited", kind, err)
				continue
			}
			results <- nil
		}
		for _, kind := range []string{"tcpip-forward", "hostkeys-00@openssh.com", "x"} {
			ok, _, err := conn.SendRequest(kind, true, nil)
			if ok || err != nil {
				results <- fmt.Errorf("request %s: %v, %v, want it refused", kind, ok, err)
				continue
			}
			results <- nil
		}
	}
	connect(t, server.options(t))
	for range 9 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestASilentServerTimesOut(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	options := newTestServer(t).options(t)
	options.Dial = func(context.Context) (net.Conn, error) { return near, nil }
	options.HandshakeTimeout = 50 * time.Millisecond
	_, err := Connect(t.Context(), options)
	if err == nil || !strings.Contains(err.Error(), "no SSH handshake within 50ms") {
		t.Errorf("Connect = %v", err)
	}
	if _, err := io.ReadAll(far); err != nil { // ends when near is closed
		t.Errorf("the connection was left open: %v", err)
	}
}

// deaf is a connection like a channel whose other side has died: closing it
// wakes no reader.
type deaf struct{ net.Conn }

func (deaf) Read([]byte) (int, error)    { select {} }
func (deaf) Write(p []byte) (int, error) { return len(p), nil }
func (deaf) Close() error                { return nil }

func TestATimeoutDoesNotNeedTheOtherSide(t *testing.T) {
	options := newTestServer(t).options(t)
	options.Dial = func(context.Context) (net.Conn, error) { return deaf{}, nil }
	options.HandshakeTimeout = 50 * time.Millisecond
	if _, err := Connect(t.Context(), options); err == nil || !strings.Contains(err.Error(), "no SSH handshake within 50ms") {
		t.Errorf("Connect = %v", err)
	}
}

func TestACancelledConnectSaysSo(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	options := newTestServer(t).options(t)
	ctx, cancel := context.WithCancel(t.Context())
	options.Dial = func(context.Context) (net.Conn, error) { cancel(); return near, nil }
	if _, err := Connect(ctx, options); !errors.Is(err, context.Canceled) {
		t.Errorf("Connect = %v, want context.Canceled", err)
	}
}

// frozen stops delivering when told to, as a paused machine does.
type frozen struct {
	net.Conn
	on   atomic.Bool
	free chan struct{}
}

func (c *frozen) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.on.Load() {
		<-c.free
		return 0, net.ErrClosed
	}
	return n, err
}

func TestKeepAliveClosesAConnectionThatDoesNotAnswer(t *testing.T) {
	var conn *frozen
	server := newTestServer(t)
	server.wrap = func(c net.Conn) net.Conn {
		conn = &frozen{Conn: c, free: make(chan struct{})}
		return conn
	}
	options := server.options(t)
	options.KeepAlive = 20 * time.Millisecond
	client, err := Connect(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-client.Done():
		t.Fatal("a living connection was closed")
	case <-time.After(300 * time.Millisecond):
	}
	conn.on.Store(true)
	defer close(conn.free)
	if _, err := conn.Conn.Write(nil); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		// The read is held, so that Done comes only after it; the closed
		// socket shows at once.
		for {
			if _, err := conn.Conn.Write(nil); err != nil {
				close(closed)
				return
			}
			select {
			case <-t.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Error("a connection that does not answer was not closed")
	}
}

// signalServer runs a command that ends with the status that handle returns
// for a signal, or goes on for a negative one.
func signalServer(t *testing.T, handle func(name string) int) *testServer {
	server := newTestServer(t)
	server.session = func(channel ssh.Channel, requests <-chan *ssh.Request) {
		for request := range requests {
			if request.WantReply {
				_ = request.Reply(true, nil)
			}
			switch request.Type {
			case "exec":
				_, _ = channel.Write([]byte("go"))
			case "signal":
				var payload struct{ Name string }
				_ = ssh.Unmarshal(request.Payload, &payload)
				if status := handle(payload.Name); status >= 0 {
					exit(channel, uint32(status))
				}
			}
		}
	}
	return server
}

func TestCancelledRunInterruptsTheCommand(t *testing.T) {
	tests := map[string]struct{ answer, status int }{
		"one that ends by it": {130, 130},
		"one that ignores it": {-1, ExitTransport},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got atomic.Value
			client := connect(t, signalServer(t, func(name string) int { got.Store(name); return test.answer }).options(t))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			started := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
			status, err := client.Run(ctx, Command{Line: "x", Stdout: started})
			if status != test.status || (err != nil) != (status == ExitTransport) || got.Load() != "INT" {
				t.Errorf("Run = %d, %v after signal %v; want status %d after INT", status, err, got.Load(), test.status)
			}
		})
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	client := connect(t, signalServer(t, func(name string) int {
		if name == "TERM" {
			return 9
		}
		return -1
	}).options(t))
	signals := make(chan os.Signal, 2)
	started := writerFunc(func(p []byte) (int, error) {
		signals <- syscall.SIGHUP
		signals <- syscall.SIGTERM
		return len(p), nil
	})
	status, err := client.Run(t.Context(), Command{Line: "x", Stdout: started, Signals: signals})
	if status != 9 || err != nil {
		t.Errorf("Run = %d, %v; want 9", status, err)
	}
}
