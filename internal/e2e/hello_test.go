//go:build linux

package e2e

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// extension is a TLS extension as it is sent.
func extension(kind uint16, body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, kind), uint16(len(body))), body...)
}

// serverNames is a server_name extension with entries of one type.
func serverNames(kind byte, names ...string) []byte {
	var list []byte
	for _, name := range names {
		list = append(append(list, kind, byte(len(name)>>8), byte(len(name))), name...)
	}
	return extension(0, append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...))
}

// handshakeRecord wraps a ClientHello body into a handshake message and a record.
func handshakeRecord(body []byte) []byte {
	message := append([]byte{1, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(message) >> 8), byte(len(message))}, message...)
}

// rawHello is a ClientHello of TLS 1.2 that a server with an ECDSA key can answer, with the given extensions.
func rawHello(extensions ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0)                            // no session
	body = append(body, 0, 4, 0xc0, 0x2b, 0x13, 0x01) // ECDHE-ECDSA-AES128-GCM, and one of TLS 1.3
	body = append(body, 1, 0)                         // no compression
	extensions = append(extensions, extension(10, []byte{0, 4, 0, 29, 0, 23}), extension(11, []byte{1, 0}), extension(13, []byte{0, 4, 4, 3, 8, 4}))
	all := bytes.Join(extensions, nil)
	return handshakeRecord(append(binary.BigEndian.AppendUint16(body, uint16(len(all))), all...))
}

// say sends raw bytes to port 443 and returns all that comes back until the other side closes, at most two seconds.
func (c *cell) say(t *testing.T, pieces ...[]byte) []byte {
	t.Helper()
	conn := c.raw(t, netlab.InternetAddr+":443")
	for _, piece := range pieces {
		_, _ = conn.Write(piece)
	}
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	answer, _ := io.ReadAll(conn)
	return answer
}

// recordedHello is what crypto/tls sends for a name.
func recordedHello(t *testing.T, name string) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	go func() { _ = tls.Client(a, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake() }()
	buffer := make([]byte, 8<<10)
	_ = b.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := b.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return buffer[:n]
}

// renamedHello is a complete ClientHello whose server name is any bytes at all.
func renamedHello(t *testing.T, name string) []byte {
	t.Helper()
	stand := strings.Repeat("a", max(1, min(len(name), 63)-8)) + ".example"
	for len(stand) < len(name) {
		stand = "a." + stand
	}
	if len(stand) > len(name) {
		stand = stand[len(stand)-len(name):]
	}
	return bytes.Replace(recordedHello(t, stand), []byte(stand), []byte(name), 1)
}

// alert reports whether an answer is a fatal alert and nothing else.
func isAlert(answer []byte) bool { return len(answer) == 7 && answer[0] == 21 && answer[5] == 2 }

// echConfigs is an ECHConfigList with a key of our own: the outer name is public, and only who has the key could read the inner one.
func echConfigs(t *testing.T, public string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	contents := []byte{7, 0, 0x20, 0, 32} // id; DHKEM(X25519)
	contents = append(contents, key.PublicKey().Bytes()...)
	contents = append(contents, 0, 4, 0, 1, 0, 1, 64, byte(len(public))) // HKDF-SHA256 and AES-128-GCM; longest name
	contents = append(append(contents, public...), 0, 0)
	config := append(binary.BigEndian.AppendUint16([]byte{0xfe, 0x0d}, uint16(len(contents))), contents...)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(config))), config...)
}

// oneByteRecords cuts the first write, the ClientHello, into records and segments of one byte.
type oneByteRecords struct {
	net.Conn
	done bool
}

func (c *oneByteRecords) Write(p []byte) (int, error) {
	if c.done {
		return c.Conn.Write(p)
	}
	c.done = true
	for _, b := range p[5:] {
		if _, err := c.Conn.Write([]byte{22, 3, 1, 0, 1, b}); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// anySession is a session cache that gives every name the last session of any other.
type anySession struct{ last *tls.ClientSessionState }

func (a *anySession) Get(string) (*tls.ClientSessionState, bool) { return a.last, a.last != nil }
func (a *anySession) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		a.last = s
	}
}
