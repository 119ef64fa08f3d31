//go:build linux

package e2e

import (
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// h2client speaks HTTP/2 without the checks of a library.
type h2client struct {
	conn *tls.Conn
	*http2.Framer
	settings map[http2.SettingID]uint32
}

func (c *cell) h2(t *testing.T, name string) *h2client {
	t.Helper()
	h := &h2client{conn: c.tls(t, name, "h2"), settings: map[http2.SettingID]uint32{}}
	if got := h.conn.ConnectionState().NegotiatedProtocol; got != "h2" {
		t.Fatalf("negotiated %q", got)
	}
	_, _ = io.WriteString(h.conn, http2.ClientPreface)
	h.Framer = http2.NewFramer(h.conn, h.conn)
	h.AllowIllegalWrites = true
	h.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = h.WriteSettings()
	for {
		f, err := h.ReadFrame()
		if err != nil {
			t.Fatalf("reading settings: %v", err)
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			_ = s.ForeachSetting(func(v http2.Setting) error { h.settings[v.ID] = v.Val; return nil })
			_ = h.WriteSettingsAck()
			return h
		}
	}
}

func (h *h2client) headers(stream uint32, end bool, fields ...string) {
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	for i := 0; i+1 < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: buf.Bytes(), EndStream: end, EndHeaders: true})
}

// outcome waits until the stream has a response or is reset, or the connection ends, and says which.
func (h *h2client) outcome(stream uint32) string {
	_ = h.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		f, err := h.ReadFrame()
		if err != nil {
			if strings.Contains(err.Error(), "timeout") {
				return "nothing"
			}
			return "closed"
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream {
				return f.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return "reset"
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return "closed"
			}
		}
	}
}

func get(authority, path string, more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "https", ":authority", authority, ":path", path}, more...)
}

func TestHTTP2Streams(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{})
	const ok, no, ok2 = "ok.test.example", "no.test.example", "ok2.test.example"
	refused := []string{"403", "421", "400", "405", "reset", "closed"}
	for id, fields := range map[string][]string{
		"A5 authority of a denied name":      get(no, "/"),
		"A5 authority and another host":      get(ok, "/", "host", no),
		"A5 two hosts":                       get(ok, "/", "host", ok, "host", no),
		"A5 only the host of a denied name":  {":method", "GET", ":scheme", "https", ":path", "/", "host", no},
		"A5 no authority at all":             {":method", "GET", ":scheme", "https", ":path", "/"},
		"A6 coalesced with another name":     get(ok2, "/"),
		"B2 absolute path":                   get(ok, "https://"+no+"/"),
		"B3 port":                            get(ok+":22", "/"),
		"B3 userinfo":                        get(no+"@"+ok, "/"),
		"B10 line break in a value":          get(ok, "/", "x", "a\r\nhost: "+no),
		"B10 line break in the path":         get(ok, "/ HTTP/1.1\r\nhost: "+no),
		"B10 space in the method":            {":method", "GET / HTTP/1.1", ":scheme", "https", ":authority", ok, ":path", "/"},
		"B10 NUL in a value":                 get(ok, "/", "x", "a\x00b"),
		"B10 colon in a name":                get(ok, "/", "x:y", "a"),
		"B10 upper-case name":                get(ok, "/", "X-Upper", "a"),
		"B10 pseudo-header after the others": {":method", "GET", ":scheme", "https", "x", "y", ":authority", ok, ":path", "/"},
		"B10 two paths":                      get(ok, "/", ":path", "/other"),
		"B10 an unknown pseudo-header":       get(ok, "/", ":evil", "1"),
		"B10 connection header":              get(ok, "/", "connection", "close"),
		"B10 transfer-encoding":              get(ok, "/", "transfer-encoding", "chunked"),
		"B10 te":                             get(ok, "/", "te", "gzip"),
		"B14 CONNECT":                        {":method", "CONNECT", ":authority", no + ":443"},
		"B14 CONNECT to itself":              {":method", "CONNECT", ":authority", ok + ":443"},
		"B14 extended CONNECT for WebSocket": {":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", ok, ":path", "/"},
		"B14 extended CONNECT for datagrams": {":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "https", ":authority", ok, ":path", "/.well-known/masque/udp/x/443/"},
		"B15 TRACE":                          {":method", "TRACE", ":scheme", "https", ":authority", ok, ":path", "/"},
		"B21 fragment":                       get(ok, "/a#b"),
		"B17 another scheme":                 {":method", "GET", ":scheme", "ftp", ":authority", ok, ":path", "/"},
		"B29 a header list of two megabytes": get(ok, "/", "x", strings.Repeat("a", 2<<20)),
	} {
		t.Run(id, func(t *testing.T) {
			c.mark(t)
			h := c.h2(t, ok)
			if len(fields) > 0 && len(fields[len(fields)-1]) > 1<<20 {
				h.large(1, fields)
			} else {
				h.headers(1, true, fields...)
			}
			if got := h.outcome(1); !slices.Contains(append(refused, "431"), got) {
				t.Errorf("outcome %q", got)
			}
			_ = h.conn.Close()
			c.noRequest(t)
			if !strings.HasPrefix(id, "B29") {
				c.denied(t, "malformed", "tunnel", "sni-host-mismatch", "port", "no-rule")
			}
		})
	}
	t.Run("B10 a length that the body belies", func(t *testing.T) {
		c.mark(t)
		h := c.h2(t, ok)
		h.headers(1, false, ":method", "POST", ":scheme", "https", ":authority", ok, ":path", "/len", "content-length", "3")
		_ = h.WriteData(1, true, []byte("GET /smuggled HTTP/1.1\r\n\r\n"))
		if got := h.outcome(1); got == "200" {
			t.Errorf("outcome %q", got)
		}
		if seen := c.world.Sightings("/smuggled"); len(seen) > 0 {
			t.Errorf("the far side saw %v", seen)
		}
	})
	t.Run("B14 extended CONNECT is not offered", func(t *testing.T) {
		if v := c.h2(t, ok).settings[http2.SettingEnableConnectProtocol]; v != 0 {
			t.Errorf("SETTINGS_ENABLE_CONNECT_PROTOCOL = %d", v)
		}
	})
	t.Run("A6 each stream is judged by itself", func(t *testing.T) {
		c.mark(t)
		h := c.h2(t, "scoped.test.example")
		for i, test := range []struct{ path, want string }{{"/public/x", "200"}, {"/secret", "403"}, {"/public/../secret", "403"}, {"/public/y", "200"}} {
			stream := uint32(2*i + 1)
			h.headers(stream, true, get("scoped.test.example", test.path)...)
			if got := h.outcome(stream); got != test.want {
				t.Errorf("%s: %q, want %s", test.path, got, test.want)
			}
		}
		h.headers(9, true, get(ok2, "/coalesced")...)
		if got := h.outcome(9); got == "200" {
			t.Error("another allowed name was served on this connection")
		}
		if seen := c.world.Sightings("https"); len(seen) != 2 {
			t.Errorf("the far side saw %v", seen)
		}
		c.denied(t, "path-rule")
	})
}

// large sends fields in as many frames as they need.
func (h *h2client) large(stream uint32, fields []string) {
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	for i := 0; i+1 < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	block := buf.Bytes()
	const size = 16 << 10
	_ = h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block[:size], EndStream: true})
	for block = block[size:]; len(block) > 0; block = block[min(size, len(block)):] {
		if h.WriteContinuation(stream, len(block) <= size, block[:min(size, len(block))]) != nil {
			return
		}
	}
}

func TestHTTP2Floods(t *testing.T) {
	const ok = "ok.test.example"
	c := newCell(t, netlab.Options{})
	floods := map[string]func(h *h2client) error{
		"B29 HPACK bomb": func(h *h2client) error {
			var buf bytes.Buffer
			enc := hpack.NewEncoder(&buf)
			_ = enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("a", 4000)})
			block := append(buf.Bytes(), bytes.Repeat([]byte{0xbe}, 16000)...) // the entry just added, 16,000 times
			return h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true})
		},
		"B30 rapid reset": func(h *h2client) error {
			for i := range uint32(20000) {
				h.headers(2*i+1, true, get(ok, "/reset")...)
				if err := h.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
					return err
				}
			}
			return nil
		},
		"B30 CONTINUATION without end": func(h *h2client) error {
			_ = h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: nil, EndStream: true})
			var buf bytes.Buffer
			enc := hpack.NewEncoder(&buf)
			enc.SetMaxDynamicTableSizeLimit(0)
			for buf.Len() < 8<<10 {
				_ = enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("a", 100), Sensitive: true})
			}
			for range 4000 {
				if err := h.WriteContinuation(1, false, buf.Bytes()); err != nil {
					return err
				}
			}
			return nil
		},
		"B30 SETTINGS": func(h *h2client) error {
			for range 50000 {
				if err := h.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16}); err != nil {
					return err
				}
			}
			return nil
		},
		"B30 PING": func(h *h2client) error {
			for range 50000 {
				if err := h.WritePing(false, [8]byte{}); err != nil {
					return err
				}
			}
			return nil
		},
		"B30 resets that the server is made to send": func(h *h2client) error {
			for i := range uint32(20000) {
				h.headers(2*i+1, false, get(ok, "/made")...)
				if err := h.WriteWindowUpdate(2*i+1, 0); err != nil { // a zero increment is a stream error
					return err
				}
			}
			return nil
		},
	}
	for id, flood := range floods {
		t.Run(id, func(t *testing.T) {
			c.world.Forget()
			h := c.h2(t, ok)
			_ = h.conn.SetDeadline(time.Now().Add(8 * time.Second))
			ended := make(chan error, 1)
			go func() { ended <- flood(h) }()
			// Meanwhile another connection is served.
			if got := c.code(t, "https://ok2.test.example/meanwhile"); got != "200" {
				t.Errorf("another connection got %s", got)
			}
			err := <-ended
			if err == nil && !strings.Contains(id, "SETTINGS") && !strings.Contains(id, "PING") && !strings.Contains(id, "rapid") {
				// All was written at once; then the answer has to be the end, or for a single bad stream its reset.
				if got := h.outcome(1); got == "nothing" {
					t.Errorf("the flood was taken: %q", got)
				}
			}
			if seen := c.world.Sightings("https", "/reset"); len(seen) > 2500 {
				t.Errorf("%d of the requests were passed on", len(seen))
			}
		})
	}
	var status control.Status
	c.daemon.Ctl(t, &status, "status")
	if status.Memory.Heap > uint64(status.Memory.Limit) {
		t.Errorf("the heap has %d MiB, its limit is %d MiB", status.Memory.Heap>>20, status.Memory.Limit>>20)
	}
}

// acceptWebSocket answers a handshake as RFC 6455 has it and then echoes bytes.
func acceptWebSocket(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		w.WriteHeader(http.StatusUpgradeRequired)
		return
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n")
	_, _ = io.Copy(conn, rw)
}
