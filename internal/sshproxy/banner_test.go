package sshproxy

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// stream is a connection that delivers data in pieces and then ends.
type stream struct {
	net.Conn
	data  []byte
	piece int
}

func (s *stream) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.piece)], s.data)
	s.data = s.data[n:]
	return n, nil
}

// FuzzBanners holds both readers to what they are for, however the bytes arrive:
// nothing is lost, what a client sent passes only when it begins with SSH-2.0-, and
// a server has said SSH-2.0- or SSH-1.99- in a line of its own.
func FuzzBanners(f *testing.F) {
	f.Add([]byte("SSH-2.0-OpenSSH_9.9\r\nkex"), 1)
	f.Add([]byte("warning\r\nSSH-1.99-x\n"), 3)
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), 1000)
	f.Add([]byte("SSH-2.0-\x00\r\n"), 2)
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		piece = max(1, piece)
		held := data[:min(len(data), piece%7)]
		client := &stream{data: data[len(held):], piece: piece}
		got, err := readClientBanner(client, bytes.Clone(held))
		if !bytes.Equal(append(bytes.Clone(got), client.data...), data) {
			t.Fatalf("bytes of the client were lost or changed: %q", got)
		}
		if err == nil && (!bytes.HasPrefix(data, []byte("SSH-2.0-")) || bytes.IndexByte(data, '\n') > maxBanner) {
			t.Fatalf("accepted the client's %q", got)
		}
		server := &stream{data: data, piece: piece}
		got, err = readServerBanner(server)
		if !bytes.Equal(append(bytes.Clone(got), server.data...), data) {
			t.Fatalf("bytes of the server were lost or changed: %q", got)
		}
		if len(got) > maxGreeting+1024 {
			t.Fatalf("held %d bytes of a greeting", len(got))
		}
		whole := append([]byte("\n"), got...)
		if err == nil && !bytes.Contains(whole, []byte("\nSSH-2.0-")) && !bytes.Contains(whole, []byte("\nSSH-1.99-")) {
			t.Fatalf("accepted the server's %q", got)
		}
	})
}
