// Package connect is the agent's SSH ProxyCommand: it asks the firewall's
// CONNECT proxy for a tunnel and joins it to standard input and output. What
// the firewall says when it refuses becomes the error's text.
package connect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	dialTimeout   = 15 * time.Second
	answerTimeout = 60 * time.Second // the firewall dials the host meanwhile
	maxDenial     = 8 << 10
)

// DeniedError is the firewall's refusal of a tunnel.
type DeniedError struct {
	Target string // host:port
	Code   string // reason code; empty when the answer had none
	Text   string // the firewall's explanation, safe for a terminal
}

func (e *DeniedError) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("the firewall refused %s: %s", e.Target, e.Text)
	}
	return fmt.Sprintf("the firewall refused %s (%s)\n%s", e.Target, e.Code, e.Text)
}

// Run tunnels in and out to host:port through the proxy at the address proxy.
// It returns when the far side has closed the tunnel.
func Run(ctx context.Context, proxy, host string, port uint16, in io.Reader, out io.Writer) error {
	conn, reader, err := Open(ctx, proxy, host, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return join(conn, reader, in, out)
}

// Open asks the proxy for a tunnel to host:port. What comes out of it is read
// from the reader, which may hold bytes already. The caller closes the
// connection. A refusal is a *DeniedError.
func Open(ctx context.Context, proxy, host string, port uint16) (net.Conn, *bufio.Reader, error) {
	// The request is one line: what could break it is not sent.
	if host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, nil, fmt.Errorf("connecting to %q: not a host name", host)
	}
	target := net.JoinHostPort(host, strconv.Itoa(int(port)))
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", proxy)
	if err != nil {
		return nil, nil, fmt.Errorf("dialing the firewall's proxy %q: %w", proxy, err)
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	reader, err := ask(conn, target)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, reader, nil
}

func ask(conn net.Conn, target string) (*bufio.Reader, error) {
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, fmt.Errorf("asking the firewall for %q: %w", target, err)
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		return nil, fmt.Errorf("asking the firewall for %q: %w", target, err)
	}
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, fmt.Errorf("reading the firewall's answer about %q: %w", target, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, denial(target, answer)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("opening the tunnel to %q: %w", target, err)
	}
	return reader, nil
}

func denial(target string, answer *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxDenial))
	explanation := printable(strings.TrimSpace(string(text)))
	if explanation == "" {
		explanation = printable(answer.Status)
	}
	denied := &DeniedError{Target: target, Code: printable(answer.Header.Get("Rootcell-Deny")), Text: explanation}
	return errors.Join(denied, err)
}

// printable drops what a terminal could take for commands.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r >= ' ' && r != 0x7f && !(0x80 <= r && r < 0xa0) {
			return r
		}
		return -1
	}, text)
}

// join copies both ways. The end of in closes that direction only.
func join(conn net.Conn, reader io.Reader, in io.Reader, out io.Writer) error {
	go func() {
		_, err := io.Copy(conn, in)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		if err != nil {
			conn.Close()
		}
	}()
	if _, err := io.Copy(out, reader); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("reading from the tunnel: %w", err)
	}
	return nil
}
