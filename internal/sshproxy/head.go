package sshproxy

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

const (
	// maxHead bounds a request head with its final empty line, in octets.
	maxHead   = 8 << 10
	maxFields = 64

	sshPort = 22
)

// target is what a CONNECT request asks for.
type target struct {
	host     hostname.Name
	port     uint16
	wantJSON bool
}

// refusal is why a request is not served, and what its sender is told.
type refusal struct {
	status  int
	reason  policy.Reason
	message string // one line, printable ASCII
	host    string // for the audit log; empty when there is no name
	port    uint16
	method  string // of a request that is not CONNECT
}

func malformed(format string, args ...any) *refusal {
	return &refusal{status: http.StatusBadRequest, reason: policy.Malformed, message: fmt.Sprintf(format, args...)}
}

// parseHead reads a request head that ends in an empty line. It is stricter than
// RFC 9112 asks for: one space between the parts of the request line, CRLF line
// ends, no folded fields, no body of any kind. A target that comes with a refusal
// is only good for wording the answer.
//
// Invariant: what is accepted has one reading, and the host it names is the one
// that is decided on and dialled (FuzzParseHead).
func parseHead(head []byte) (target, *refusal) {
	lines := strings.Split(string(bytes.TrimSuffix(head, []byte("\r\n\r\n"))), "\r\n")
	authority, version, refused := parseRequestLine(lines[0])
	if refused != nil {
		return target{}, refused
	}
	host, port, err := hostname.ParseAuthority(authority)
	if err != nil {
		return target{}, malformed("CONNECT needs HOST:22, and %v", err)
	}
	if port == 0 {
		return target{}, malformed("CONNECT needs HOST:22, and the port is missing")
	}
	t := target{host: host, port: port}
	if refused := t.parseFields(lines[1:], version); refused != nil {
		refused.host, refused.port = host.String(), port
		return t, refused
	}
	if port != sshPort {
		return t, &refusal{
			status: http.StatusForbidden, reason: policy.Port, host: host.String(), port: port,
			message: fmt.Sprintf("only port 22 is tunnelled, not %d; HTTPS needs no proxy here", port),
		}
	}
	return t, nil
}

func parseRequestLine(line string) (authority, version string, refused *refusal) {
	method, rest, _ := strings.Cut(line, " ")
	authority, version, ok := strings.Cut(rest, " ")
	switch {
	case !isToken(method) || !ok || strings.ContainsFunc(rest, func(r rune) bool { return r < ' ' || r > '~' }):
		return "", "", malformed("the request line is not an HTTP/1.1 request line")
	case version != "HTTP/1.1" && version != "HTTP/1.0":
		return "", "", malformed("only HTTP/1.1 is spoken here")
	case method != http.MethodConnect:
		r := &refusal{status: http.StatusMethodNotAllowed, reason: policy.Malformed, method: method,
			message: "this port only tunnels SSH (CONNECT HOST:22); HTTPS is intercepted without a proxy setting"}
		if strings.HasPrefix(strings.ToLower(authority), "http://") {
			r.reason = policy.Cleartext
			r.message = "cleartext HTTP is never forwarded; use https:// without a proxy setting"
		}
		return "", "", r
	}
	return authority, version, nil
}

// parseFields checks the header fields. Of all of them only Accept has a meaning here.
func (t *target) parseFields(lines []string, version string) *refusal {
	if len(lines) > maxFields {
		return malformed("the request has more than %d header fields", maxFields)
	}
	hosts := 0
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) || strings.ContainsFunc(value, isControl) {
			return malformed("the request has a malformed header field")
		}
		value = strings.Trim(value, " \t")
		switch strings.ToLower(name) {
		case "content-length", "transfer-encoding":
			// Invariant: a CONNECT request has no body, so nothing can hide in one
			// (TestRefusals).
			return malformed("a CONNECT request must not have a body (%s)", strings.ToLower(name))
		case "host":
			hosts++
			host, port, err := hostname.ParseAuthority(value)
			if err != nil || host != t.host || port != 0 && port != t.port {
				return malformed("the Host field differs from the CONNECT target")
			}
		case "accept":
			t.wantJSON = t.wantJSON || strings.Contains(strings.ToLower(value), "json")
		}
	}
	if hosts > 1 || hosts == 0 && version == "HTTP/1.1" {
		return malformed("an HTTP/1.1 request needs exactly one Host field")
	}
	return nil
}

// hopeless reports whether no continuation of data can be a request head, so that
// TLS or SSH sent to this port is answered at once and not after a timeout.
func hopeless(data []byte) bool {
	line, _, complete := bytes.Cut(data, []byte("\r\n"))
	if !complete {
		line = bytes.TrimSuffix(line, []byte("\r"))
	}
	for _, c := range line {
		if c < ' ' || c > '~' {
			return true
		}
	}
	return len(line) > 0 && (line[0] < 'A' || line[0] > 'Z') || bytes.HasPrefix(data, []byte("SSH-"))
}

// isControl is what a field value must not contain (RFC 9110, 5.5), bytes that
// are not ASCII included.
func isControl(r rune) bool { return r != '\t' && r < ' ' || r > '~' }

// isToken is `token` of RFC 9110, 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
