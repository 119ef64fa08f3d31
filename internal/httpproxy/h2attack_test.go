package httpproxy_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/rootcell-ai/rootcell/internal/audit"
)

// h2client speaks HTTP/2 without the checks of a library.
type h2client struct {
	t    testing.TB
	conn *tls.Conn
	*http2.Framer
	settings map[http2.SettingID]uint32
}

func (w *world) h2(name string) *h2client {
	w.t.Helper()
	c := &h2client{t: w.t, conn: w.open(name, "h2"), settings: map[http2.SettingID]uint32{}}
	_, _ = io.WriteString(c.conn, http2.ClientPreface)
	c.Framer = http2.NewFramer(c.conn, c.conn)
	c.AllowIllegalWrites = true
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = c.WriteSettings()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			w.t.Fatalf("reading settings: %v", err)
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			_ = s.ForeachSetting(func(v http2.Setting) error { c.settings[v.ID] = v.Val; return nil })
			_ = c.WriteSettingsAck()
			return c
		}
	}
}

func (c *h2client) headers(stream uint32, end bool, fields ...string) {
	c.t.Helper()
	var buf bytes.Buffer
	enc := hpack.NewEncoder(&buf)
	for i := 0; i+1 < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: buf.Bytes(), EndStream: end, EndHeaders: true})
}

// outcome waits until the stream has a response, is reset, or the connection
// ends, and says which.
func (c *h2client) outcome(stream uint32) string {
	for {
		f, err := c.ReadFrame()
		if err != nil {
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

func TestHTTP2StreamsThatMustNotArrive(t *testing.T) {
	pseudo := func(more ...string) []string {
		return append([]string{":method", "GET", ":scheme", "https", ":authority", ok, ":path", "/"}, more...)
	}
	tests := map[string]struct {
		fields []string
		want   []string // acceptable outcomes
	}{
		"A5 authority of a denied name":      {[]string{":method", "GET", ":scheme", "https", ":authority", denied, ":path", "/"}, []string{"403"}},
		"A5 authority and another host":      {pseudo("host", denied), []string{"reset"}},
		"A5 two hosts":                       {pseudo("host", ok, "host", denied), []string{"reset"}},
		"A5 only the host of a denied name":  {[]string{":method", "GET", ":scheme", "https", ":path", "/", "host", denied}, []string{"403"}},
		"A5 no authority at all":             {[]string{":method", "GET", ":scheme", "https", ":path", "/"}, []string{"400", "reset"}},
		"A6 coalesced with another name":     {[]string{":method", "GET", ":scheme", "https", ":authority", other, ":path", "/"}, []string{"403"}},
		"B2 absolute path":                   {[]string{":method", "GET", ":scheme", "https", ":authority", ok, ":path", "https://" + denied + "/"}, []string{"reset"}},
		"B3 port":                            {[]string{":method", "GET", ":scheme", "https", ":authority", ok + ":22", ":path", "/"}, []string{"403"}},
		"B3 userinfo":                        {[]string{":method", "GET", ":scheme", "https", ":authority", denied + "@" + ok, ":path", "/"}, []string{"reset", "400"}},
		"B10 line break in a value":          {pseudo("x", "a\r\nhost: "+denied), []string{"reset", "closed"}},
		"B10 line break in the path":         {[]string{":method", "GET", ":scheme", "https", ":authority", ok, ":path", "/ HTTP/1.1\r\nhost: x"}, []string{"reset", "closed"}},
		"B10 space in the method":            {[]string{":method", "GET / HTTP/1.1", ":scheme", "https", ":authority", ok, ":path", "/"}, []string{"reset", "400", "403"}},
		"B10 upper-case name":                {pseudo("X-Upper", "a"), []string{"reset", "closed"}},
		"B10 pseudo-header after the others": {[]string{":method", "GET", ":scheme", "https", "x", "y", ":authority", ok, ":path", "/"}, []string{"reset", "closed"}},
		"B10 two paths":                      {pseudo(":path", "/other"), []string{"reset", "closed"}},
		"B10 connection header":              {pseudo("connection", "close"), []string{"400", "reset"}},
		"B10 transfer-encoding":              {pseudo("transfer-encoding", "chunked"), []string{"400", "reset"}},
		"B10 te":                             {pseudo("te", "gzip"), []string{"400", "reset"}},
		"B14 CONNECT":                        {[]string{":method", "CONNECT", ":authority", denied + ":443"}, []string{"403", "reset"}},
		"B14 extended CONNECT":               {[]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", ok, ":path", "/"}, []string{"reset", "403", "closed"}},
		"B15 TRACE":                          {[]string{":method", "TRACE", ":scheme", "https", ":authority", ok, ":path", "/"}, []string{"405"}},
		"B21 fragment":                       {[]string{":method", "GET", ":scheme", "https", ":authority", ok, ":path", "/a#b"}, []string{"403", "400", "reset"}},
	}
	for id, test := range tests {
		t.Run(id, func(t *testing.T) {
			w := build(t, nil)
			c := w.h2(ok)
			c.headers(1, true, test.fields...)
			got := c.outcome(1)
			found := false
			for _, want := range test.want {
				found = found || got == want
			}
			if !found {
				t.Errorf("outcome %q, want one of %q", got, test.want)
			}
			// What the library refuses before there is a request leaves no event.
			if strings.HasPrefix(id, "B10") {
				w.wantNoRequest()
				return
			}
			w.events.wait(t, "denied", func(e audit.Event) bool { return e.Verdict == audit.Deny })
			w.wantNoRequest()
		})
	}
	t.Run("B14 extended CONNECT is not offered", func(t *testing.T) {
		w := build(t, nil)
		if v := w.h2(ok).settings[http2.SettingEnableConnectProtocol]; v != 0 {
			t.Errorf("SETTINGS_ENABLE_CONNECT_PROTOCOL = %d", v)
		}
	})
	t.Run("the rest of the connection goes on", func(t *testing.T) {
		w := build(t, nil)
		c := w.h2(ok)
		c.headers(1, true, ":method", "GET", ":scheme", "https", ":authority", denied, ":path", "/")
		if got := c.outcome(1); got != "403" {
			t.Errorf("outcome %q", got)
		}
		c.headers(3, true, ":method", "GET", ":scheme", "https", ":authority", ok, ":path", "/")
		if got := c.outcome(3); got != "200" {
			t.Errorf("outcome %q", got)
		}
	})
}

func TestH2Target(t *testing.T) {
	w := build(t, nil)
	for _, target := range []string{"/a%2Fb//c/../d;x=1?q=%7e&&=", "//x", "/?", "/a?b?c", "*"} {
		c := w.h2(ok)
		method := "GET"
		if target == "*" {
			method = "OPTIONS"
		}
		c.headers(1, true, ":method", method, ":scheme", "https", ":authority", ok, ":path", target)
		if got := c.outcome(1); got != "200" {
			t.Errorf("%s: outcome %q", target, got)
		}
		seen := w.sink.seen()
		if want := method + " " + ok + " " + target; len(seen) == 0 || seen[len(seen)-1] != want {
			t.Errorf("the sink saw %q, want %q", seen, want)
		}
	}
}

func TestB30FloodsEndTheConnection(t *testing.T) {
	fields := []string{":method", "GET", ":scheme", "https", ":authority", ok, ":path", "/"}
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/other" {
			<-r.Context().Done()
		}
	})
	floods := map[string]func(c *h2client) error{
		"rapid reset": func(c *h2client) error {
			for id := uint32(1); ; id += 2 {
				c.headers(id, true, fields...)
				if err := c.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
					return err
				}
			}
		},
		"CONTINUATION": func(c *h2client) error {
			if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}); err != nil {
				return err
			}
			block := bytes.Repeat([]byte{0x00, 1, 'a', 1, 'b'}, 1000)
			for {
				if err := c.WriteContinuation(1, false, block); err != nil {
					return err
				}
			}
		},
	}
	for id, flood := range floods {
		t.Run(id, func(t *testing.T) {
			w := build(t, slow)
			c := w.h2(ok)
			_ = c.conn.SetDeadline(time.Now().Add(5 * time.Second))
			go func() { _, _ = io.Copy(io.Discard, c.conn) }()
			err := flood(c)
			// A flood that is too slow to pile anything up is borne; others must not notice it either way.
			var network interface{ Timeout() bool }
			borne := errors.As(err, &network) && network.Timeout()
			if borne && id == "CONTINUATION" {
				t.Error("an endless header block was borne")
			}
			res, err := w.client2().Get("https://" + ok + "/other")
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("another client after the flood: %v, %v", res, err)
			}
			res.Body.Close()
		})
	}
	t.Run("B29 header list over the limit", func(t *testing.T) {
		w := build(t, nil)
		c := w.h2(ok)
		big := string(bytes.Repeat([]byte("a"), 8000))
		var buf bytes.Buffer
		enc := hpack.NewEncoder(&buf)
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", ok}, {":path", "/"}, {"x", big}} {
			_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		// The HPACK bomb: one entry of the table, referred to again and again.
		block := append(buf.Bytes(), bytes.Repeat([]byte{0x80 | 62}, 1000)...)
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true})
		if got := c.outcome(1); got != "431" && got != "closed" && got != "reset" {
			t.Errorf("outcome %q", got)
		}
		w.wantNoRequest()
	})
}

func TestA15NoHTTP2InsideH2(t *testing.T) {
	w := build(t, nil)
	c := w.open(ok, "h2")
	_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
	_, _ = io.ReadAll(c)
	w.wantNoRequest()
}
