package sshproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
)

const (
	// maxBanner is the longest identification string with its line end (RFC 4253, 4.2).
	maxBanner = 255
	// maxGreeting bounds the lines that a server may send before it, in octets, and
	// maxGreetingLines their number. OpenSSH's own client reads 1,024 lines, but
	// what servers send is a warning of a few.
	maxGreeting      = 8 << 10
	maxGreetingLines = 64
)

var (
	errNotSSH     = errors.New("it does not identify itself as SSH 2.0")
	errSSHVersion = errors.New("it only speaks SSH 1, which is not allowed")
)

// readServerBanner reads from conn up to and including the server's
// identification string, which may follow other lines, and returns all that was
// read, what came after it included. A server that speaks both versions says
// SSH-1.99 (RFC 4253, 5.1).
func readServerBanner(conn net.Conn) ([]byte, error) {
	data := make([]byte, 0, 1024)
	at, lines := 0, 0
	for {
		for {
			i := bytes.IndexByte(data[at:], '\n')
			if i < 0 {
				break
			}
			line := data[at : at+i+1]
			at += i + 1
			if bytes.HasPrefix(line, []byte("SSH-")) {
				return data, checkBanner(line, "SSH-2.0-", "SSH-1.99-")
			}
			if lines++; lines > maxGreetingLines {
				return data, errNotSSH
			}
		}
		if len(data) > maxGreeting {
			return data, errNotSSH
		}
		var err error
		if data, err = readMore(conn, data); err != nil {
			return data, err
		}
	}
}

// readClientBanner completes the client's identification string, of which held
// is what the client sent already. Nothing may precede it. It returns all that was
// read.
func readClientBanner(conn net.Conn, held []byte) ([]byte, error) {
	data := held
	for {
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			return data, checkBanner(data[:i+1], "SSH-2.0-")
		}
		prefix := []byte("SSH-2.0-")
		if n := min(len(data), len(prefix)); !bytes.Equal(data[:n], prefix[:n]) || len(data) > maxBanner {
			return data, errNotSSH
		}
		var err error
		if data, err = readMore(conn, data); err != nil {
			return data, err
		}
	}
}

// checkBanner judges a line that ends in LF.
func checkBanner(line []byte, prefixes ...string) error {
	text := bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if len(line) > maxBanner {
		return errNotSSH
	}
	for _, c := range text {
		if c < ' ' || c > '~' {
			return errNotSSH
		}
	}
	for _, prefix := range prefixes {
		if len(text) > len(prefix) && string(text[:len(prefix)]) == prefix {
			return nil
		}
	}
	if bytes.HasPrefix(text, []byte("SSH-1.")) {
		return errSSHVersion
	}
	return errNotSSH
}

// readMore appends what one Read returns. The end of the stream is an error here.
func readMore(conn net.Conn, data []byte) ([]byte, error) {
	var chunk [1024]byte
	n, err := conn.Read(chunk[:])
	data = append(data, chunk[:n]...)
	if n > 0 {
		return data, nil
	}
	if errors.Is(err, io.EOF) {
		return data, fmt.Errorf("%w: the connection ended", errNotSSH)
	}
	return data, err
}
