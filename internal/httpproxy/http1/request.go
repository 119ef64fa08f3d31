package http1

import (
	"bufio"
	"encoding/base64"
	"strings"
)

// Framing says how the body of a message ends.
type Framing uint8

const (
	NoBody      Framing = iota // the head is all
	LengthBody                 // Length bytes
	ChunkedBody                // chunked transfer coding
	CloseBody                  // a response that lasts until the connection closes
)

// Request is a request head with everything derived from it.
type Request struct {
	Head
	Host      string // the one Host field, as sent
	Framing   Framing
	Length    int64  // of a LengthBody
	Close     bool   // the client wants the connection closed afterwards
	WebSocket string // the Sec-WebSocket-Key of a valid opening handshake, else ""
	Continue  bool   // the client waits for 100 (Continue)
}

// ReadRequest reads one request head. io.EOF means a clean end before its
// first byte. The caller sets deadlines on the connection under r.
func ReadRequest(r *bufio.Reader, limits Limits) (*Request, error) {
	raw, err := readHead(r, limits.Bytes, true)
	if err != nil {
		return nil, err
	}
	req := &Request{Head: Head{Raw: raw}}
	line, rest, _ := strings.Cut(string(raw), "\r\n")
	if err := req.parseLine(line); err != nil {
		return req, err
	}
	if req.Fields, err = parseFields(rest, limits.Fields); err != nil {
		return req, err
	}
	if err := req.parseHost(); err != nil {
		return req, err
	}
	if err := req.parseFraming(); err != nil {
		return req, err
	}
	return req, req.parseConnection()
}

// parseLine reads `METHOD SP target SP HTTP/1.x` with single spaces.
func (r *Request) parseLine(line string) error {
	method, rest, ok := strings.Cut(line, " ")
	if !ok || !isToken(method) {
		return ErrNotHTTP
	}
	target, version, ok := strings.Cut(rest, " ")
	if !ok || !strings.HasPrefix(version, "HTTP/") {
		return ErrNotHTTP
	}
	switch version {
	case "HTTP/1.1":
		r.Minor = 1
	case "HTTP/1.0":
	default:
		return ErrVersion
	}
	r.Method, r.Target = method, target
	if target == "" {
		return malformed("empty request target")
	}
	for i := 0; i < len(target); i++ {
		// No white space or control character; a fragment is never sent (RFC 9112, 3.2).
		if c := target[i]; c <= ' ' || c == 0x7f || c == '#' {
			return malformed("character %q in the request target", c)
		}
	}
	return nil
}

// parseHost takes the one Host field.
//
// Invariant: exactly one, whatever the version (TestRequestHead, B1, B17).
func (r *Request) parseHost() error {
	host, n := r.Get("Host")
	if n != 1 || host == "" {
		return malformed("%d Host fields", n)
	}
	r.Host = host
	return nil
}

// parseFraming derives how the body ends.
//
// Invariant: either one Content-Length of plain digits, or one Transfer-Encoding that is
// exactly "chunked", or neither (TestRequestHead, B4, B5).
func (r *Request) parseFraming() error {
	coding, codings := r.Get("Transfer-Encoding")
	length, lengths := r.Get("Content-Length")
	switch {
	case codings > 0 && lengths > 0:
		return malformed("both Content-Length and Transfer-Encoding")
	case codings > 1 || lengths > 1:
		return malformed("repeated framing field")
	case codings == 1:
		if r.Minor == 0 || !strings.EqualFold(coding, "chunked") {
			return malformed("transfer coding %q", coding)
		}
		r.Framing = ChunkedBody
	case lengths == 1:
		n, ok := parseLength(length)
		if !ok {
			return malformed("content length %q", length)
		}
		if n > 0 {
			r.Framing, r.Length = LengthBody, n
		}
	}
	return nil
}

// parseLength reads plain digits. More than 18 of them are no length of anything.
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// parseConnection checks the hop-by-hop fields. They are passed on as they are, because
// there is one connection upstream for one exchange; so they may only say what is known.
//
// Invariant: Connection names no end-to-end field (TestRequestHead, B16), and Upgrade is a
// complete WebSocket handshake or an error (B11, B13).
func (r *Request) parseConnection() error {
	upgrade := false
	var bad string
	r.eachToken("Connection", func(token string) {
		switch strings.ToLower(token) {
		case "close":
			r.Close = true
		case "keep-alive", "te":
		case "upgrade":
			upgrade = true
		default:
			bad = token
		}
	})
	if _, settings := r.Get("HTTP2-Settings"); settings > 0 {
		return ErrTunnel // the upgrade to cleartext HTTP/2
	}
	if bad != "" {
		return malformed("connection option %q", bad)
	}
	if r.Minor == 0 {
		r.Close = true
	}
	if expect, n := r.Get("Expect"); n > 0 {
		if n > 1 || !strings.EqualFold(expect, "100-continue") {
			return malformed("expectation %q", expect)
		}
		r.Continue = true
	}
	protocol, n := r.Get("Upgrade")
	if n == 0 && !upgrade {
		return nil
	}
	return r.parseWebSocket(protocol, n == 1 && upgrade)
}

// parseWebSocket checks the opening handshake of RFC 6455, 4.1.
func (r *Request) parseWebSocket(protocol string, announced bool) error {
	key, keys := r.Get("Sec-WebSocket-Key")
	version, versions := r.Get("Sec-WebSocket-Version")
	nonce, err := base64.StdEncoding.Strict().DecodeString(key)
	valid := announced && strings.EqualFold(protocol, "websocket") &&
		r.Method == "GET" && r.Minor == 1 && r.Framing == NoBody &&
		keys == 1 && versions == 1 && version == "13" && err == nil && len(nonce) == 16
	if !valid {
		return ErrTunnel
	}
	r.WebSocket = key
	return nil
}
