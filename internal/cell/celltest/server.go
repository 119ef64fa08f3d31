package celltest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// server is an SSH server for one connection.
type server struct {
	user       string
	hostKey    string
	authorized []string
	sftp       string // directory in which copies begin; "" has no SFTP
	run        func(command) int
	forward    func(host string, port uint32, conn net.Conn) bool // nil refuses
}

// command is what a session asks for; an empty line is a shell.
type command struct {
	line           string
	tty            bool
	env            []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

func (s *server) serve(conn net.Conn) {
	signer, err := ssh.ParsePrivateKey([]byte(s.hostKey))
	if err != nil {
		return
	}
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
		for _, a := range s.authorized {
			if strings.HasPrefix(a, line) && meta.User() == s.user {
				return nil, nil
			}
		}
		return nil, errors.New("this key may not enter")
	}}
	cfg.AddHostKey(signer)
	server, channels, requests, err := ssh.NewServerConn(conn, cfg)
	if err != nil {
		return
	}
	defer server.Close()
	go answerAll(requests)
	for request := range channels {
		switch request.ChannelType() {
		case "session":
			go s.session(request)
		case "direct-tcpip":
			go s.direct(request)
		default:
			_ = request.Reject(ssh.UnknownChannelType, "not here")
		}
	}
}

func answerAll(requests <-chan *ssh.Request) {
	for r := range requests {
		if r.WantReply {
			_ = r.Reply(true, nil)
		}
	}
}

func (s *server) direct(request ssh.NewChannel) {
	var want struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	near, far := net.Pipe()
	if ssh.Unmarshal(request.ExtraData(), &want) != nil || s.forward == nil || !s.forward(want.Host, want.Port, far) {
		_ = request.Reject(ssh.Prohibited, "not there")
		return
	}
	channel, requests, err := request.Accept()
	if err != nil {
		return
	}
	go answerAll(requests)
	go func() {
		_, _ = io.Copy(channel, near)
		channel.Close()
	}()
	_, _ = io.Copy(near, channel)
	near.Close()
}

func (s *server) session(request ssh.NewChannel) {
	channel, requests, err := request.Accept()
	if err != nil {
		return
	}
	c := command{stdin: channel, stdout: channel, stderr: channel.Stderr()}
	for r := range requests {
		var text struct{ Text string }
		ok, start := true, false
		switch r.Type {
		case "exec":
			ok = ssh.Unmarshal(r.Payload, &text) == nil
			c.line, start = text.Text, ok
		case "shell":
			start = true
		case "pty-req":
			c.tty = true
		case "env":
			var kv struct{ Name, Value string }
			if ssh.Unmarshal(r.Payload, &kv) == nil {
				c.env = append(c.env, kv.Name+"="+kv.Value)
			}
		case "subsystem":
			ok = s.sftp != "" && ssh.Unmarshal(r.Payload, &text) == nil && text.Text == "sftp"
			if ok {
				go serveSFTP(channel, s.sftp)
			}
		default:
			ok = false
		}
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
		if start {
			go s.start(channel, c)
		}
	}
}

func (s *server) start(channel ssh.Channel, c command) {
	status := s.run(c)
	_ = channel.CloseWrite()
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
	channel.Close()
}

func serveSFTP(channel ssh.Channel, home string) {
	defer channel.Close()
	server, err := sftp.NewServer(channel, sftp.WithServerWorkingDirectory(home))
	if err != nil {
		return
	}
	_ = server.Serve()
}

// local runs a command as a process of the test, as a login of the agent.
func (c command) local(home, tools string) int {
	line := c.line
	if line == "" {
		line = "sh"
	}
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Dir = home
	cmd.Env = append([]string{
		"HOME=" + home, "PATH=" + tools + ":/usr/local/bin:/usr/bin:/bin",
		"GIT_CONFIG_SYSTEM=" + filepath.Join(home, "etc-gitconfig"),
		fmt.Sprintf("HAS_TTY=%v", c.tty),
	}, c.env...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 126
	}
	cmd.Stdout, cmd.Stderr = c.stdout, c.stderr
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(c.stderr, err)
		return 127
	}
	go func() {
		_, _ = io.Copy(stdin, c.stdin)
		stdin.Close()
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil || errors.Is(err, os.ErrClosed):
		return 0
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return exit.ExitCode()
	}
	return 1
}

func (c command) answer(v any) int {
	if err := json.NewEncoder(c.stdout).Encode(v); err != nil {
		return 1
	}
	return 0
}

func (c command) refuse(why string) int {
	fmt.Fprintln(c.stderr, "rootcell firewall: "+why)
	return 2
}

// buffered is a pair of connected sockets. It panics where there are none.
func buffered() (near, far net.Conn) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		panic(err)
	}
	conns := make([]net.Conn, 2)
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "pair")
		if conns[i], err = net.FileConn(f); err != nil {
			panic(err)
		}
		f.Close()
	}
	return conns[0], conns[1]
}
