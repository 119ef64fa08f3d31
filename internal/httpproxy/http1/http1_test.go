package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

var limits = Limits{Bytes: 4096, Fields: 50}

func read(s string) (*Request, error) {
	return ReadRequest(bufio.NewReaderSize(strings.NewReader(s), 16), limits)
}

func TestRequestHead(t *testing.T) {
	const good = "GET / HTTP/1.1\r\nHost: a.example\r\n"
	tests := map[string]struct {
		head string
		err  error
	}{
		"plain":                         {good + "\r\n", nil},
		"upper and lower case":          {"GET / HTTP/1.1\r\nhOsT: a.example\r\n\r\n", nil},
		"options asterisk":              {"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", nil},
		"HTTP/1.0 with Host":            {"GET / HTTP/1.0\r\nHost: a.example\r\n\r\n", nil},
		"length 0":                      {good + "Content-Length: 0\r\n\r\n", nil},
		"keep-alive and TE":             {good + "Connection: keep-alive, TE\r\nTE: trailers\r\n\r\n", nil},
		"B1 no Host":                    {"GET / HTTP/1.1\r\n\r\n", ErrMalformed},
		"B1 two Hosts":                  {good + "Host: a.example\r\n\r\n", ErrMalformed},
		"B1 empty Host":                 {"GET / HTTP/1.1\r\nHost:\r\n\r\n", ErrMalformed},
		"B1 folded field":               {good + "X: a\r\n b\r\n\r\n", ErrMalformed},
		"B1 space before colon":         {good + "X : a\r\n\r\n", ErrMalformed},
		"B4 both framings":              {good + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", ErrMalformed},
		"B4 repeated length":            {good + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", ErrMalformed},
		"B4 length over 63 bits":        {good + "Content-Length: 99999999999999999999\r\n\r\n", ErrMalformed},
		"B4 empty length":               {good + "Content-Length:\r\n\r\n", ErrMalformed},
		"B5 two codings":                {good + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ErrMalformed},
		"B5 chunked in HTTP/1.0":        {"POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n", ErrMalformed},
		"B6 bare line feed":             {"GET / HTTP/1.1\nHost: a.example\r\n\r\n", ErrMalformed},
		"B6 bare line feed at the end":  {good + "\n", ErrMalformed},
		"B6 bare carriage return":       {good + "X: a\rb\r\n\r\n", ErrMalformed},
		"B6 NUL":                        {good + "X: \x00\r\n\r\n", ErrMalformed},
		"B11 h2c":                       {good + "Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", ErrTunnel},
		"B13 Upgrade without Connect":   {good + "Upgrade: websocket\r\n\r\n", ErrTunnel},
		"B16 Connection names a field":  {good + "Connection: Host\r\n\r\n", ErrMalformed},
		"B17 HTTP/1.2":                  {"GET / HTTP/1.2\r\nHost: a.example\r\n\r\n", ErrVersion},
		"B17 HTTP/0.9":                  {"GET /\r\n\r\n", ErrNotHTTP},
		"B21 fragment":                  {"GET /#a HTTP/1.1\r\nHost: a.example\r\n\r\n", ErrMalformed},
		"two spaces":                    {"GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n", ErrNotHTTP},
		"space in the target":           {"GET /a b HTTP/1.1\r\nHost: a.example\r\n\r\n", ErrNotHTTP},
		"other expectation":             {good + "Expect: tea\r\n\r\n", ErrMalformed},
		"B29 too large":                 {good + "X: " + strings.Repeat("a", 5000) + "\r\n\r\n", ErrTooLarge},
		"B29 too many":                  {good + strings.Repeat("X: a\r\n", 60) + "\r\n", ErrTooLarge},
		"empty line first":              {"\r\n" + good + "\r\n", ErrNotHTTP},
		"end before the first byte":     {"", io.EOF},
		"end within":                    {good, io.ErrUnexpectedEOF},
		"SSH":                           {"SSH-2.0-OpenSSH_9.2\r\n", ErrNotHTTP},
		"bytes that cannot become HTTP": {"\x16\x03\x01", ErrNotHTTP},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			req, err := read(test.head)
			if !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
			if err == nil && string(req.Raw) != test.head {
				t.Errorf("raw %q", req.Raw)
			}
		})
	}
}

func TestReadingStopsAtTheEndOfTheHead(t *testing.T) {
	const head = "POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\n"
	for _, size := range []int{16, 64, 4096} {
		br := bufio.NewReaderSize(iotest.HalfReader(strings.NewReader(head+"abcGET")), size)
		req, err := ReadRequest(br, limits)
		if err != nil || req.Framing != LengthBody || req.Length != 3 {
			t.Fatalf("%+v, %v", req, err)
		}
		var body bytes.Buffer
		if n, err := CopyBody(&body, br, req.Framing, req.Length, limits); n != 3 || err != nil || body.String() != "abc" {
			t.Errorf("%d %q %v", n, body.String(), err)
		}
		if rest, _ := io.ReadAll(br); string(rest) != "GET" {
			t.Errorf("rest %q", rest)
		}
	}
}

func TestChunked(t *testing.T) {
	tests := map[string]struct {
		body string
		err  error
	}{
		"plain":              {"3\r\nabc\r\n0\r\n\r\n", nil},
		"empty":              {"0\r\n\r\n", nil},
		"upper-case digits":  {"A\r\n0123456789\r\n0\r\n\r\n", nil},
		"extension":          {"3;name=value\r\nabc\r\n0\r\n\r\n", nil},
		"trailer":            {"3\r\nabc\r\n0\r\nX: y\r\n\r\n", nil},
		"large chunk":        {"c350\r\n" + strings.Repeat("a", 50_000) + "\r\n0\r\n\r\n", nil},
		"B6 no size":         {"\r\nabc\r\n0\r\n\r\n", ErrMalformed},
		"B6 prefix":          {"0x3\r\nabc\r\n0\r\n\r\n", ErrMalformed},
		"B6 space":           {"3 \r\nabc\r\n0\r\n\r\n", ErrMalformed},
		"B6 bare line feed":  {"3\nabc\r\n0\r\n\r\n", ErrMalformed},
		"B6 no end":          {"3\r\nabcd\r\n0\r\n\r\n", ErrMalformed},
		"B6 too large":       {"1000000000000000\r\n", ErrMalformed},
		"B6 bare LF in ext":  {"3;a\nb\r\nabc\r\n0\r\n\r\n", ErrMalformed},
		"B6 long extension":  {"3;" + strings.Repeat("a", 300) + "\r\n", ErrMalformed},
		"B6 framing trailer": {"0\r\nContent-Length: 3\r\n\r\n", ErrMalformed},
		"cut in a chunk":     {"3\r\nab", io.ErrUnexpectedEOF},
		"cut in the trailer": {"0\r\nX: y\r\n", io.ErrUnexpectedEOF},
	}
	for name, test := range tests {
		for _, reader := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, func(r io.Reader) io.Reader { return r }} {
			t.Run(name, func(t *testing.T) {
				br := bufio.NewReader(reader(strings.NewReader(test.body + "NEXT")))
				if errors.Is(test.err, io.ErrUnexpectedEOF) {
					br = bufio.NewReader(reader(strings.NewReader(test.body)))
				}
				var out bytes.Buffer
				n, err := CopyBody(&out, br, ChunkedBody, 0, limits)
				if !errors.Is(err, test.err) || n != int64(out.Len()) || !strings.HasPrefix(test.body, out.String()) {
					t.Fatalf("%q, %v; want %v", out.String(), err, test.err)
				}
				if rest, _ := io.ReadAll(br); err == nil && (out.String() != test.body || string(rest) != "NEXT") {
					t.Errorf("wrote %q, left %q", out.String(), rest)
				}
			})
		}
	}
}

func TestResponses(t *testing.T) {
	tests := map[string]struct {
		head, method string
		framing      Framing
		err          error
	}{
		"length":               {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "GET", LengthBody, nil},
		"identical lengths":    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", "GET", LengthBody, nil},
		"chunked":              {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", ChunkedBody, nil},
		"until the end":        {"HTTP/1.1 200 OK\r\n\r\n", "GET", CloseBody, nil},
		"no reason":            {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "GET", NoBody, nil},
		"HEAD":                 {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HEAD", NoBody, nil},
		"304":                  {"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", "GET", NoBody, nil},
		"interim":              {"HTTP/1.1 103 Early Hints\r\n\r\n", "GET", NoBody, nil},
		"contradicting length": {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", "GET", NoBody, ErrMalformed},
		"both framings":        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", NoBody, ErrMalformed},
		"other coding":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "GET", NoBody, ErrMalformed},
		"status of two digits": {"HTTP/1.1 20 OK\r\n\r\n", "GET", NoBody, ErrMalformed},
		"status below 100":     {"HTTP/1.1 099 OK\r\n\r\n", "GET", NoBody, ErrMalformed},
		"HTTP/2.0":             {"HTTP/2.0 200 OK\r\n\r\n", "GET", NoBody, ErrMalformed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			res, err := ReadResponse(bufio.NewReader(strings.NewReader(test.head)), test.method, limits)
			if !errors.Is(err, test.err) || err == nil && res.Framing != test.framing {
				t.Errorf("%+v, %v; want %v, %v", res, err, test.framing, test.err)
			}
		})
	}
}

// FuzzReadRequest is differential: whatever is accepted here, net/http reads with the
// same method, target, host and framing, and leaves the same bytes behind it.
func FuzzReadRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
		"POST /a?b=c HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 5\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
		"OPTIONS * HTTP/1.0\r\nHost: a\r\nConnection: close, te\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\nHost: a\n\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, input string) {
		br := bufio.NewReader(strings.NewReader(input))
		ours, err := ReadRequest(br, limits)
		if err != nil {
			return
		}
		var body bytes.Buffer
		_, bodyErr := CopyBody(&body, br, ours.Framing, ours.Length, limits)
		theirBuffer := bufio.NewReader(strings.NewReader(input))
		theirs, err := http.ReadRequest(theirBuffer)
		if err != nil {
			// Stricter than us is fine where it is about the meaning of a target or
			// a host, which the pipeline judges.
			if !strings.Contains(err.Error(), "invalid") && !strings.Contains(err.Error(), "malformed") && !strings.Contains(err.Error(), "parse ") {
				t.Fatalf("net/http refuses %q: %v", input, err)
			}
			return
		}
		if theirs.Method != ours.Method || theirs.RequestURI != ours.Target || theirs.ProtoMinor != ours.Minor {
			t.Fatalf("%q %q, net/http reads %q %q", ours.Method, ours.Target, theirs.Method, theirs.RequestURI)
		}
		if strings.HasPrefix(ours.Target, "/") && theirs.Host != ours.Host {
			t.Fatalf("host %q, net/http reads %q", ours.Host, theirs.Host)
		}
		length, chunked := int64(0), len(theirs.TransferEncoding) == 1 && theirs.TransferEncoding[0] == "chunked"
		if ours.Framing == LengthBody {
			length = ours.Length
		}
		if chunked != (ours.Framing == ChunkedBody) || !chunked && theirs.ContentLength != length {
			t.Fatalf("framing %v %d, net/http reads %q %d", ours.Framing, ours.Length, theirs.TransferEncoding, theirs.ContentLength)
		}
		content, err := io.ReadAll(theirs.Body)
		if bodyErr != nil {
			return
		}
		if err != nil && !strings.Contains(err.Error(), "trailer") {
			t.Fatalf("net/http refuses the body %q: %v", body.String(), err)
		}
		if ours.Framing == LengthBody && string(content) != body.String() {
			t.Fatalf("body %q, net/http reads %q", body.String(), content)
		}
		if err == nil {
			ourRest, _ := io.ReadAll(br)
			theirRest, _ := io.ReadAll(theirBuffer)
			if !bytes.Equal(ourRest, theirRest) {
				t.Fatalf("left %q, net/http leaves %q", ourRest, theirRest)
			}
		}
	})
}
