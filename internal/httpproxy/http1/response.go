package http1

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"strings"
)

// Response is a response head with everything derived from it.
type Response struct {
	Head
	Framing Framing
	Length  int64 // of a LengthBody
	Close   bool  // upstream closes the connection afterwards
}

// ReadResponse reads one response head, final or interim (1xx), to a request
// of the given method.
func ReadResponse(r *bufio.Reader, method string, limits Limits) (*Response, error) {
	raw, err := readHead(r, limits.Bytes, true)
	if err != nil {
		return nil, err
	}
	res := &Response{Head: Head{Raw: raw}}
	line, rest, _ := strings.Cut(string(raw), "\r\n")
	if err := res.parseLine(line); err != nil {
		return nil, err
	}
	if res.Fields, err = parseFields(rest, limits.Fields); err != nil {
		return nil, err
	}
	res.Close = res.Minor == 0 && !res.ListHas("Connection", "keep-alive") || res.ListHas("Connection", "close")
	return res, res.parseFraming(method)
}

func (r *Response) parseLine(line string) error {
	version, rest, _ := strings.Cut(line, " ")
	switch version {
	case "HTTP/1.1":
		r.Minor = 1
	case "HTTP/1.0":
	default:
		return malformed("status line")
	}
	code, reason, _ := strings.Cut(rest, " ")
	if len(code) != 3 || code[0] < '1' || code[0] > '9' {
		return malformed("status code %q", code)
	}
	n, ok := parseLength(code)
	if !ok {
		return malformed("status code %q", code)
	}
	for i := 0; i < len(reason); i++ {
		if c := reason[i]; c < ' ' && c != '\t' || c == 0x7f {
			return malformed("reason phrase")
		}
	}
	r.Status, r.Reason = int(n), reason
	return nil
}

// parseFraming follows RFC 9112, 6.3, and refuses where that prescribes repair.
func (r *Response) parseFraming(method string) error {
	if r.Status < 200 || r.Status == 204 || r.Status == 304 || method == "HEAD" {
		return nil
	}
	coding, codings := r.Get("Transfer-Encoding")
	length, lengths := r.Get("Content-Length")
	switch {
	case codings > 0 && lengths > 0:
		return malformed("response with both Content-Length and Transfer-Encoding")
	case codings > 1:
		return malformed("repeated framing field")
	case codings == 1:
		if r.Minor == 0 || !strings.EqualFold(coding, "chunked") {
			return malformed("transfer coding %q", coding)
		}
		r.Framing = ChunkedBody
	case lengths > 0:
		for _, f := range r.Fields {
			if strings.EqualFold(f.Name, "Content-Length") && f.Value != length {
				return malformed("contradicting content lengths")
			}
		}
		n, ok := parseLength(length)
		if !ok {
			return malformed("content length %q", length)
		}
		if n > 0 {
			r.Framing, r.Length = LengthBody, n
		}
	default:
		r.Framing, r.Close = CloseBody, true
	}
	return nil
}

// Accepts reports whether the response is a 101 that completes the WebSocket
// handshake with the given key (RFC 6455, 4.1).
func (r *Response) Accepts(key string) bool {
	// The hash is the protocol's own, not a security measure.
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	accept, accepts := r.Get("Sec-WebSocket-Accept")
	protocol, protocols := r.Get("Upgrade")
	return r.Status == 101 && key != "" && accepts == 1 && protocols == 1 &&
		strings.EqualFold(protocol, "websocket") && r.ListHas("Connection", "upgrade") &&
		accept == base64.StdEncoding.EncodeToString(sum[:])
}

// Without returns the head without the named field's lines, as it was otherwise sent.
func (h *Head) Without(name string) []byte {
	if _, n := h.Get(name); n == 0 {
		return h.Raw
	}
	out := make([]byte, 0, len(h.Raw))
	for line := range strings.SplitAfterSeq(string(h.Raw), "\r\n") {
		field, _, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(field, name) {
			continue
		}
		out = append(out, line...)
	}
	return out
}
