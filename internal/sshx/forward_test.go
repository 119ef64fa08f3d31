package sshx

import (
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
)

// shout is a server on the loopback that answers in upper case once the client
// has finished sending.
func shout(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				text, _ := io.ReadAll(conn)
				_, _ = io.WriteString(conn, strings.ToUpper(string(text)))
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

func ask(t *testing.T, port int, text string) (string, error) {
	t.Helper()
	conn, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

func TestForwardCarriesBothEnds(t *testing.T) {
	client := connectSSHD(t)
	f, err := client.Forward(t.Context(), PortForward{Remote: shout(t)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("hello ", 100_000)
	if got, err := ask(t, f.Port, text); err != nil || got != strings.ToUpper(text) {
		t.Errorf("%d bytes came back with %v, want %d", len(got), err, len(text))
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := ask(t, f.Port, "x"); err == nil {
		t.Error("a closed forwarding answers")
	}
}

func TestForwardListensOnLoopbackOnly(t *testing.T) {
	client := connectSSHD(t)
	f, err := client.Forward(t.Context(), PortForward{Remote: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := f.listener.Addr().(*net.TCPAddr).IP; !got.Equal(net.IPv4(127, 0, 0, 1)) {
		t.Errorf("listening on %v", got)
	}
}

func TestForwardSaysThatThePortIsTaken(t *testing.T) {
	client := connectSSHD(t)
	taken := shout(t)
	_, err := client.Forward(t.Context(), PortForward{Local: taken, Remote: 80}, nil)
	if err == nil || !strings.Contains(err.Error(), "port "+strconv.Itoa(taken)+" of this machine is taken") {
		t.Errorf("Forward = %v", err)
	}
}

func TestForwardReportsAClosedPortOfTheAgent(t *testing.T) {
	client := connectSSHD(t)
	failures := make(chan error, 1)
	f, err := client.Forward(t.Context(), PortForward{Remote: int(freeAddr(t).Port())}, func(err error) { failures <- err })
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if answer, _ := ask(t, f.Port, "x"); answer != "" {
		t.Errorf("answer %q", answer)
	}
	if err := <-failures; !strings.Contains(err.Error(), "of the agent") {
		t.Error(err)
	}
}

func TestForwardEndsWithTheConnection(t *testing.T) {
	client := connectSSHD(t)
	f, err := client.Forward(t.Context(), PortForward{Remote: shout(t)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestParsePortForward(t *testing.T) {
	good := map[string]PortForward{"8080": {8080, 8080}, "1:65535": {1, 65535}, "0:80": {0, 80}}
	for text, want := range good {
		if got, err := ParsePortForward(text); err != nil || got != want {
			t.Errorf("ParsePortForward(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":", "0", "80:0", "65536", "-1", "+80", "80:", ":80", "a", "1:2:3", "127.0.0.1:80", "000080"} {
		if got, err := ParsePortForward(text); err == nil {
			t.Errorf("ParsePortForward(%q) = %v, want an error", text, got)
		}
	}
}
