package sshx

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// machine is an OpenSSH server process of this test on the loopback.
type machine struct {
	addr    netip.AddrPort
	hostKey ssh.PublicKey
	user    string
}

// startSSHD runs a real sshd that lets the key in, with further lines of
// configuration.
func startSSHD(t *testing.T, key ssh.Signer, lines ...string) machine {
	t.Helper()
	program := ""
	for _, candidate := range []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"} {
		if _, err := os.Stat(candidate); err == nil {
			program = candidate
			break
		}
	}
	if program == "" {
		t.Skip("there is no OpenSSH server on this machine (package openssh-server)")
	}
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Skipf("sshd as root needs /run/sshd: %v", err)
		}
	}
	dir := t.TempDir()
	hostPEM, host, err := NewKey("test host")
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := []string{
		"HostKey " + put("host_key", string(hostPEM)),
		"AuthorizedKeysFile " + put("authorized_keys", PublicLine(key.PublicKey(), "test")+"\n"),
		"PidFile none", "UsePAM no", "StrictModes no", "PasswordAuthentication no", "PermitRootLogin yes",
		"LogLevel VERBOSE", "PrintMotd no", "PrintLastLog no", "Subsystem sftp internal-sftp", "MaxStartups 100",
	}
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	m := machine{addr: freeAddr(t), hostKey: host.PublicKey(), user: who.Username}
	config = append(config, fmt.Sprintf("ListenAddress %s", m.addr))
	config = append(config, lines...)
	cmd := exec.Command(program, "-D", "-e", "-f", put("sshd_config", strings.Join(config, "\n")+"\n"))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	listening := make(chan bool, 1)
	go func() {
		scanner := bufio.NewScanner(stderr)
		for scanner.Scan() {
			if strings.Contains(scanner.Text(), "Server listening on") {
				listening <- true
			}
		}
		listening <- false
	}()
	if !<-listening {
		t.Fatal("sshd ended before it listened")
	}
	return m
}

func freeAddr(t *testing.T) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).AddrPort()
}

func (m machine) options(key ssh.Signer) Options {
	return Options{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", m.addr.String())
		},
		User:    m.user,
		Key:     key,
		HostKey: m.hostKey,
	}
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := NewKey("test")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// connectSSHD starts a server and a connection to it.
func connectSSHD(t *testing.T, lines ...string) *Client {
	t.Helper()
	key := newKey(t)
	return connect(t, startSSHD(t, key, lines...).options(key))
}

func connect(t *testing.T, options Options) *Client {
	t.Helper()
	client, err := Connect(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}
