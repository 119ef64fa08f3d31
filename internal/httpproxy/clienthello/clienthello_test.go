package clienthello_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/httpproxy/clienthello"
)

// record returns the ClientHello that crypto/tls sends.
func record(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() { _ = tls.Client(a, cfg).Handshake() }()
	buf := make([]byte, 16<<10)
	_ = b.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func TestRead(t *testing.T) {
	hello := record(t, &tls.Config{ServerName: "api.test.example", NextProtos: []string{"h2", "http/1.1"}})
	got, raw, err := clienthello.Read(bytes.NewReader(append(hello[:len(hello):len(hello)], "more"...)))
	want := clienthello.Hello{ServerName: "api.test.example", HasServerName: true, ALPN: []string{"h2", "http/1.1"}}
	if err != nil || !cmp.Equal(got, want) || !bytes.Equal(raw, hello) {
		t.Errorf("got %+v and %d bytes, %v; want %+v and %d bytes", got, len(raw), err, want, len(hello))
	}
	if !got.Offers("h2") || got.Offers("h3") {
		t.Error("Offers is wrong")
	}
}

// extension builds a hello with the given extensions in place of all others.
func withExtensions(extensions string) []byte {
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00"
	if extensions != "" {
		body += string([]byte{byte(len(extensions) >> 8), byte(len(extensions))}) + extensions
	}
	message := string([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}) + body
	return []byte("\x16\x03\x01" + string([]byte{byte(len(message) >> 8), byte(len(message))}) + message)
}

func sni(entries string) string {
	list := string([]byte{byte(len(entries) >> 8), byte(len(entries))}) + entries
	return "\x00\x00" + string([]byte{byte(len(list) >> 8), byte(len(list))}) + list
}

func entry(kind byte, name string) string {
	return string([]byte{kind, byte(len(name) >> 8), byte(len(name))}) + name
}

func TestServerName(t *testing.T) {
	tests := map[string]struct {
		hello []byte
		name  string
		err   error
	}{
		"one name":                       {withExtensions(sni(entry(0, "a.example"))), "a.example", nil},
		"no extensions":                  {withExtensions(""), "", nil},
		"A11 two names":                  {withExtensions(sni(entry(0, "a.example") + entry(0, "b.example"))), "", clienthello.ErrMalformed},
		"A11 two extensions":             {withExtensions(sni(entry(0, "a.example")) + sni(entry(0, "b.example"))), "", clienthello.ErrMalformed},
		"A11 another type":               {withExtensions(sni(entry(1, "a.example"))), "", clienthello.ErrMalformed},
		"A11 another type before a name": {withExtensions(sni(entry(1, "x") + entry(0, "a.example"))), "", clienthello.ErrMalformed},
		"A2 empty name":                  {withExtensions(sni(entry(0, ""))), "", clienthello.ErrMalformed},
		"A2 256 bytes":                   {withExtensions(sni(entry(0, strings.Repeat("a", 256)))), "", clienthello.ErrMalformed},
		"empty list":                     {withExtensions(sni("")), "", clienthello.ErrMalformed},
		"not TLS":                        {[]byte("GET / HTTP/1.1\r\n"), "", clienthello.ErrNotTLS},
		"a ServerHello":                  {[]byte("\x16\x03\x01\x00\x04\x02\x00\x00\x00"), "", clienthello.ErrMalformed},
		"an empty record":                {[]byte("\x16\x03\x01\x00\x00"), "", clienthello.ErrMalformed},
		"cut":                            {withExtensions("")[:20], "", io.ErrUnexpectedEOF},
		"longer than the limit":          {[]byte("\x16\x03\x01\x00\x04\x01\xff\xff\xff"), "", clienthello.ErrTooLarge},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			hello, _, err := clienthello.Read(bytes.NewReader(test.hello))
			if !errors.Is(err, test.err) || hello.ServerName != test.name {
				t.Errorf("%+v, %v; want %q, %v", hello, err, test.name, test.err)
			}
		})
	}
}

// FuzzRead holds what is accepted against crypto/tls: it must read the same name
// and protocols, or refuse the hello.
func FuzzRead(f *testing.F) {
	f.Add(record(f, &tls.Config{ServerName: "api.test.example", NextProtos: []string{"h2", "http/1.1"}}))
	f.Add(record(f, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}))
	f.Add(withExtensions(sni(entry(0, "a.example"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		hello, raw, err := clienthello.Read(bytes.NewReader(data))
		if !bytes.HasPrefix(data, raw) {
			t.Fatalf("%d bytes of the input are not its beginning", len(raw))
		}
		if err != nil {
			return
		}
		theirs, ok := readByTLS(raw)
		if ok && (theirs.ServerName != hello.ServerName || !cmp.Equal(theirs.SupportedProtos, hello.ALPN)) {
			t.Errorf("read %+v, crypto/tls reads %q %q", hello, theirs.ServerName, theirs.SupportedProtos)
		}
	})
}

var errSeen = errors.New("seen")

func readByTLS(raw []byte) (info tls.ClientHelloInfo, ok bool) {
	c := tls.Server(onlyReads{Reader: bytes.NewReader(raw)}, &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			info, ok = *h, true
			return nil, errSeen
		},
	})
	_ = c.Handshake()
	return info, ok
}

// onlyReads is a connection whose writes go nowhere.
type onlyReads struct {
	net.Conn
	io.Reader
}

func (c onlyReads) Read(p []byte) (int, error)       { return c.Reader.Read(p) }
func (c onlyReads) Write(p []byte) (int, error)      { return len(p), nil }
func (c onlyReads) Close() error                     { return nil }
func (c onlyReads) SetWriteDeadline(time.Time) error { return nil }
