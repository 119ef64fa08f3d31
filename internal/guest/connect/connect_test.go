package connect

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// proxy answers one connection by do and passes on the request that it read.
func proxy(t *testing.T, do func(net.Conn, *bufio.Reader)) (address string, requests chan *http.Request) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	requests = make(chan *http.Request, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		reader := bufio.NewReader(conn)
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		requests <- request
		do(conn, reader)
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), requests
}

func TestRunJoinsBothWays(t *testing.T) {
	address, requests := proxy(t, func(conn net.Conn, reader *bufio.Reader) {
		// The first bytes come in one segment with the answer.
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nSSH-2.0-far\r\n")
		text, _ := io.ReadAll(reader) // until our half is closed
		conn.Write(bytes.ToUpper(text))
	})
	var out bytes.Buffer
	if err := Run(context.Background(), address, "github.com", 22, strings.NewReader("near"), &out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "SSH-2.0-far\r\nNEAR" {
		t.Errorf("read %q", got)
	}
	request := <-requests
	if request.Method != http.MethodConnect || request.RequestURI != "github.com:22" || request.Host != "github.com:22" {
		t.Errorf("asked %s %s for %s", request.Method, request.RequestURI, request.Host)
	}
}

func TestDenialReachesTheUserWithoutControlCharacters(t *testing.T) {
	address, _ := proxy(t, func(conn net.Conn, _ *bufio.Reader) {
		io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nRootcell-Deny: no-rule\r\nContent-Length: 22\r\n\r\nrun \x1b[2Jrootcell allow")
	})
	err := Run(context.Background(), address, "example.com", 22, strings.NewReader(""), io.Discard)
	var denied *DeniedError
	if !errors.As(err, &denied) || denied.Code != "no-rule" || denied.Target != "example.com:22" {
		t.Fatalf("Run = %v", err)
	}
	if strings.ContainsRune(err.Error(), '\x1b') || !strings.Contains(err.Error(), "rootcell allow") {
		t.Errorf("shows %q", err.Error())
	}
}

func TestRunRefusesBeforeItDials(t *testing.T) {
	for _, host := range []string{"", "a b", "a\r\nX: y", "a\x00b", "a\tb", "a\x7f"} {
		err := Run(context.Background(), "192.0.2.1:1", host, 22, strings.NewReader(""), io.Discard)
		if err == nil || !strings.Contains(err.Error(), "not a host name") {
			t.Errorf("Run(%q) = %v", host, err)
		}
	}
}

func TestRunSaysWhyThereIsNoTunnel(t *testing.T) {
	t.Run("an answer that is not HTTP", func(t *testing.T) {
		address, _ := proxy(t, func(conn net.Conn, _ *bufio.Reader) { io.WriteString(conn, "SSH-2.0-x\r\n") })
		if err := Run(context.Background(), address, "example.com", 22, strings.NewReader(""), io.Discard); err == nil {
			t.Error("no error")
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if err := Run(context.Background(), l.Addr().String(), "example.com", 22, strings.NewReader(""), io.Discard); err == nil {
			t.Error("no error")
		}
	})
}
