package sshserver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func signer(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// world is a running server, what it dialled, and a key that may enter.
type world struct {
	address string
	key     ssh.Signer
	host    ssh.PublicKey
	dialled chan string
	agent   chan net.Conn // the agent's ends of tunnels
	ran     chan string
}

func start(t *testing.T) *world {
	t.Helper()
	hostKey, key := signer(t), signer(t)
	w := &world{key: key, host: hostKey.PublicKey(), dialled: make(chan string, 9), agent: make(chan net.Conn, 9), ran: make(chan string, 9)}
	server, err := New(Options{
		HostKey: hostKey, Authorized: []ssh.PublicKey{key.PublicKey()}, Agent: "192.168.100.11:22",
		Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			w.dialled <- address
			near, far := net.Pipe()
			w.agent <- far
			return near, nil
		},
		Run: func(_ context.Context, line string, stdin io.Reader, stdout, stderr io.Writer) int {
			w.ran <- line
			text, _ := io.ReadAll(stdin)
			io.WriteString(stdout, strings.ToUpper(string(text)))
			io.WriteString(stderr, "done\n")
			return 7
		},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	return w
}

func (w *world) dial(user string, key ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", w.address, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(w.host),
	})
}

func (w *world) enter(t *testing.T) *ssh.Client {
	t.Helper()
	client, err := w.dial(User, w.key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestAuthorization(t *testing.T) {
	w := start(t)
	other := signer(t)
	cases := map[string]struct {
		user string
		key  ssh.Signer
	}{
		"another key":  {User, other},
		"another user": {"root", w.key},
		"no user":      {"", w.key},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if client, err := w.dial(tc.user, tc.key); err == nil {
				client.Close()
				t.Error("let in")
			}
		})
	}
	t.Run("a password", func(t *testing.T) {
		client, err := ssh.Dial("tcp", w.address, &ssh.ClientConfig{
			User: User, Auth: []ssh.AuthMethod{ssh.Password("")}, HostKeyCallback: ssh.FixedHostKey(w.host),
		})
		if err == nil {
			client.Close()
			t.Error("let in")
		}
	})
}

func TestSessionRunsACommandWithStreamsAndStatus(t *testing.T) {
	w := start(t)
	session, err := w.enter(t).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader("hello"), &stdout, &stderr
	err = session.Run("ctl status")
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 7 {
		t.Errorf("Run = %v, want status 7", err)
	}
	if got := <-w.ran; got != "ctl status" {
		t.Errorf("ran %q", got)
	}
	if stdout.String() != "HELLO" || stderr.String() != "done\n" {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
}

func TestSessionRefuses(t *testing.T) {
	w := start(t)
	client := w.enter(t)
	requests := map[string]func(*ssh.Session) error{
		"a shell":          func(s *ssh.Session) error { return s.Shell() },
		"a terminal":       func(s *ssh.Session) error { return s.RequestPty("xterm", 24, 80, nil) },
		"an environment":   func(s *ssh.Session) error { return s.Setenv("LD_PRELOAD", "x") },
		"a subsystem":      func(s *ssh.Session) error { return s.RequestSubsystem("sftp") },
		"agent forwarding": func(s *ssh.Session) error { return refusal(s.SendRequest("auth-agent-req@openssh.com", true, nil)) },
		"X11 forwarding":   func(s *ssh.Session) error { return refusal(s.SendRequest("x11-req", true, nil)) },
	}
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			session, err := client.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			if request(session) == nil {
				t.Error("granted")
			}
		})
	}
	select {
	case line := <-w.ran:
		t.Errorf("ran %q", line)
	default:
	}
}

func refusal(ok bool, err error) error {
	if !ok && err == nil {
		return errors.New("refused")
	}
	return err
}

func TestDirect(t *testing.T) {
	w := start(t)
	client := w.enter(t)
	for _, address := range []string{
		"192.168.100.11:23", "192.168.100.10:53", "127.0.0.1:22", "10.0.2.2:22", "agent:22", "192.168.100.011:22", "[::ffff:192.168.100.11]:22",
	} {
		t.Run("refuses "+address, func(t *testing.T) {
			if conn, err := client.Dial("tcp", address); err == nil {
				conn.Close()
				t.Error("opened")
			}
		})
	}
	select {
	case address := <-w.dialled:
		t.Errorf("dialled %q", address)
	default:
	}
	t.Run("joins the agent both ways", func(t *testing.T) {
		conn, err := client.Dial("tcp", "192.168.100.11:22")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := <-w.dialled; got != "192.168.100.11:22" {
			t.Errorf("dialled %q", got)
		}
		agent := <-w.agent
		go io.WriteString(agent, "SSH-2.0-agent\r\n")
		buf := make([]byte, 15)
		if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "SSH-2.0-agent\r\n" {
			t.Errorf("read %q, %v", buf, err)
		}
		go io.WriteString(conn, "x")
		if _, err := io.ReadFull(agent, buf[:1]); err != nil {
			t.Error(err)
		}
		agent.Close()
		if _, err := conn.Read(buf); !errors.Is(err, io.EOF) {
			t.Errorf("after the agent hung up: %v", err)
		}
	})
}

func TestChannels(t *testing.T) {
	w := start(t)
	client := w.enter(t)
	for _, kind := range []string{"x11", "forwarded-tcpip", "direct-streamlocal@openssh.com", "tun@openssh.com", "auth-agent@openssh.com"} {
		t.Run("refuses "+kind, func(t *testing.T) {
			channel, _, err := client.OpenChannel(kind, nil)
			if err == nil {
				channel.Close()
				t.Error("opened")
			}
		})
	}
	t.Run("refuses a malformed tunnel", func(t *testing.T) {
		if channel, _, err := client.OpenChannel("direct-tcpip", []byte{1}); err == nil {
			channel.Close()
			t.Error("opened")
		}
	})
	t.Run("refuses to listen for the client", func(t *testing.T) {
		if l, err := client.Listen("tcp", "127.0.0.1:0"); err == nil {
			l.Close()
			t.Error("listens")
		}
	})
}

func TestNewRefuses(t *testing.T) {
	key := signer(t)
	for name, o := range map[string]Options{
		"nobody authorized": {HostKey: key, Agent: "192.168.100.11:22"},
		"no agent":          {HostKey: key, Authorized: []ssh.PublicKey{key.PublicKey()}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(o); err == nil {
				t.Error("made")
			}
		})
	}
}
