// Package http1 reads HTTP/1.1 message heads and bodies strictly and passes
// them on byte for byte.
//
// Whatever it accepts has one reading (RFC 9112 without any of its tolerances):
// every line ends in CRLF, no folding, one framing header, one Host. The
// differential fuzz test holds that net/http reads the same method, target,
// host and framing from every head that is accepted here.
package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits bounds one message head.
type Limits struct {
	Bytes  int // of the whole head, with its last CRLF CRLF
	Fields int // header lines
}

var (
	// ErrMalformed wraps every violation of the grammar.
	ErrMalformed = errors.New("malformed message")
	// ErrTooLarge means that a head or trailer section is over its limit.
	ErrTooLarge = errors.New("header section over the limit")
	// ErrNotHTTP means that the first line is no HTTP at all.
	ErrNotHTTP = errors.New("no HTTP")
	// ErrTunnel means an upgrade to anything but a valid WebSocket.
	ErrTunnel = errors.New("upgrade that is no WebSocket handshake")
	// ErrVersion means a version other than HTTP/1.0 and HTTP/1.1.
	ErrVersion = errors.New("unsupported HTTP version")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Field is one header line. Name and Value are substrings of the head: the
// name as it was sent, the value without the white space around it.
type Field struct{ Name, Value string }

// Head is a parsed message head.
type Head struct {
	// Raw are the bytes as they were read, with the final empty line.
	Raw []byte
	// Method and Target are set for requests, Status and Reason for responses.
	Method, Target string
	Status         int
	Reason         string
	// Minor is the minor HTTP version, 0 or 1.
	Minor  int
	Fields []Field
}

// Get returns the first value of the named field and how many such fields there are.
func (h *Head) Get(name string) (value string, count int) {
	for i := range h.Fields {
		if len(h.Fields[i].Name) == len(name) && strings.EqualFold(h.Fields[i].Name, name) {
			if count == 0 {
				value = h.Fields[i].Value
			}
			count++
		}
	}
	return value, count
}

// ListHas reports whether a comma-separated list field holds the token, in any
// letter case.
func (h *Head) ListHas(name, token string) bool {
	found := false
	h.eachToken(name, func(t string) { found = found || strings.EqualFold(t, token) })
	return found
}

// eachToken calls f with every non-empty member of a list field.
func (h *Head) eachToken(name string, f func(string)) {
	for i := range h.Fields {
		if !strings.EqualFold(h.Fields[i].Name, name) {
			continue
		}
		for part := range strings.SplitSeq(h.Fields[i].Value, ",") {
			if part = strings.Trim(part, " \t"); part != "" {
				f(part)
			}
		}
	}
}

// readHead reads up to and including the first CRLF CRLF.
//
// Invariant: a line feed without its carriage return, and a carriage return
// without its line feed, end the reading at once (TestRequestHead, B6), so
// nobody behind can see other line ends than we do.
//
// With started the head begins with a start line; a trailer section does not.
func readHead(r *bufio.Reader, limit int, started bool) ([]byte, error) {
	var head []byte
	for {
		if r.Buffered() == 0 {
			if _, err := r.Peek(1); err != nil {
				if len(head) > 0 && errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return head, err
			}
		}
		window, err := r.Peek(r.Buffered())
		if err != nil {
			return head, err
		}
		start := len(head)
		take := len(window)
		done := false
		for i := 0; i < len(window); {
			nl := bytes.IndexByte(window[i:], '\n')
			if nl < 0 {
				break
			}
			i += nl
			before := byteAt(head, window, start+i-1)
			if before != '\r' {
				return head, malformed("line feed without carriage return")
			}
			i++
			if byteAt(head, window, start+i-3) == '\n' || start+i == 2 {
				take, done = i, true
				break
			}
		}
		if start+take > limit {
			return head, ErrTooLarge
		}
		head = append(head, window[:take]...)
		if _, err := r.Discard(take); err != nil {
			return head, err
		}
		if done {
			return head, nil
		}
		// What can never become HTTP is refused without waiting for more of it.
		if started && start < methodWindow && !plausibleStart(head) {
			return head, ErrNotHTTP
		}
	}
}

// byteAt is the i-th byte of head followed by window, 0 outside.
func byteAt(head, window []byte, i int) byte {
	switch {
	case i < 0:
		return 0
	case i < len(head):
		return head[i]
	case i-len(head) < len(window):
		return window[i-len(head)]
	}
	return 0
}

// methodWindow is how far the first token of a message is looked at before it
// has ended.
const methodWindow = 24

// plausibleStart reports whether b can begin a request or status line.
func plausibleStart(b []byte) bool {
	for _, c := range b[:min(len(b), methodWindow)] {
		if c == ' ' || c == '/' {
			return true
		}
		if !isTokenByte(c) {
			return false
		}
	}
	return true
}

// parseFields reads header lines; text begins after the start line and ends
// with the empty line.
func parseFields(text string, limit int) ([]Field, error) {
	fields := make([]Field, 0, 16)
	for {
		line, rest, ok := strings.Cut(text, "\r\n")
		if !ok {
			return nil, malformed("header section without end")
		}
		if line == "" {
			if rest != "" {
				return nil, malformed("bytes after the header section")
			}
			return fields, nil
		}
		text = rest
		field, err := parseField(line)
		if err != nil {
			return nil, err
		}
		if len(fields) >= limit {
			return nil, ErrTooLarge
		}
		fields = append(fields, field)
	}
}

// parseField reads one header line. A line that begins with white space (obs-fold)
// has no token for a name, and white space before the colon is none either.
func parseField(line string) (Field, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || !isToken(name) {
		return Field{}, malformed("header name")
	}
	value = strings.Trim(value, " \t")
	for i := 0; i < len(value); i++ {
		if c := value[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return Field{}, malformed("control character in header %q", name)
		}
	}
	return Field{Name: name, Value: value}, nil
}

func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// isTokenByte is tchar of RFC 9110, 5.6.2.
func isTokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
