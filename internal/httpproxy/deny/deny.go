// Package deny is what a client is told when the firewall refuses a request:
// why, and what a person on the host can do about it.
package deny

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

// Header carries the reason code in every answer of the firewall's own.
const Header = "Rootcell-Deny"

// Error is a denial. It is the error of a judged request: an error of any
// other kind is turned into one.
type Error struct {
	policy.Decision
	// Status is the HTTP status; 0 means the usual one of the reason.
	Status int
	// Detail says more than the reason's meaning does; may be empty.
	Detail string
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("denied (%s)", e.Reason)
	}
	return fmt.Sprintf("denied (%s): %s", e.Reason, e.Detail)
}

// For returns the denial for a reason that is not a rule's.
func For(reason policy.Reason, detail string) *Error {
	return &Error{Decision: policy.Deny(reason), Detail: detail}
}

// StatusCode returns the HTTP status of the denial: 403 for what the policy
// forbids, 400 for what is no proper request, 502 for what is wrong upstream.
func (e *Error) StatusCode() int {
	if e.Status != 0 {
		return e.Status
	}
	switch e.Reason {
	case policy.Malformed, policy.NotHTTP:
		return http.StatusBadRequest
	case policy.Limit:
		return http.StatusServiceUnavailable
	case policy.UpstreamCert, policy.UpstreamProtocol, policy.UpstreamUnreachable:
		return http.StatusBadGateway
	}
	return http.StatusForbidden
}

// Request is the refused request as far as it is known.
type Request struct {
	Host, Method, Target string
	Accept               string // the Accept field, "" for none
}

// document is the JSON form of a denial.
type document struct {
	Denied  bool   `json:"denied"`
	Reason  string `json:"reason"`
	Meaning string `json:"meaning"`
	Detail  string `json:"detail,omitempty"`
	Kind    string `json:"kind"`
	Host    string `json:"host"`
	Method  string `json:"method,omitempty"`
	Path    string `json:"path,omitempty"`
	Rule    string `json:"rule,omitempty"`
	List    string `json:"list,omitempty"`
	Command string `json:"command,omitempty"`
}

// Body returns the explanation: JSON when the client asks for it, else text.
func (e *Error) Body(instance string, r Request) (contentType string, body []byte) {
	doc := document{
		Denied: true, Reason: string(e.Reason), Meaning: e.Reason.Meaning(), Detail: e.Detail,
		Kind: string(policy.KindHTTPS), Host: r.Host, Method: r.Method, Path: r.Target, Rule: e.Rule,
	}
	doc.List, doc.Command = e.remedy(instance, r)
	if wantsJSON(r.Accept) {
		// A struct of strings always encodes.
		body, _ := json.Marshal(doc)
		return "application/json", append(body, '\n')
	}
	return "text/plain; charset=utf-8", doc.text()
}

func (d document) text() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "rootcell denied this request (%s): %s\n", d.Reason, d.Meaning)
	line := func(label, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-8s %s\n", label+":", value)
		}
	}
	line("detail", d.Detail)
	line("kind", d.Kind)
	line("host", d.Host)
	if d.Method != "" {
		line("request", d.Method+" "+d.Path)
	}
	line("rule", d.Rule)
	line("list", d.List)
	if d.Command != "" {
		fmt.Fprintf(&b, "To allow it, run on the host: %s\n", d.Command)
	}
	return []byte(b.String())
}

// remedy names the list to edit and the command to run on the host. What a rule
// cannot mend has neither.
func (e *Error) remedy(instance string, r Request) (list, command string) {
	rootcell := "rootcell"
	if instance != "" && instance != "default" {
		rootcell += " -i " + instance
	}
	switch e.Reason {
	case policy.NoRule, policy.Revoked:
		return listFile, rootcell + " allow " + r.Host
	case policy.PathRule:
		return listFile, rootcell + " allow " + r.Host + " --path '" + pathRegex(r) + "'"
	case policy.BadPolicy:
		return listFile, rootcell + " policy check"
	}
	return "", ""
}

// listFile is the list that decides HTTPS.
const listFile = "allowed-https.txt"

// pathRegex suggests a regex for exactly this request.
//
// Invariant: the command is text from the agent that a person may paste into a
// shell on the host, so nothing but letters, digits and -._~/ of the request gets
// into it (TestCommandIsSafeToPaste).
func pathRegex(r Request) string {
	path, _, _ := strings.Cut(r.Target, "?")
	if !plain(r.Method) || !plain(path) || len(path) > 256 {
		return "REGEX"
	}
	return r.Method + " " + strings.NewReplacer(".", `\.`).Replace(path)
}

func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("-._~/", c) < 0 {
			return false
		}
	}
	return s != ""
}

// wantsJSON reports whether Accept names a JSON type and no text before it.
func wantsJSON(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		kind, _, err := mime.ParseMediaType(part)
		switch {
		case err != nil:
		case kind == "application/json", strings.HasSuffix(kind, "+json"):
			return true
		case strings.HasPrefix(kind, "text/"):
			return false
		}
	}
	return false
}
