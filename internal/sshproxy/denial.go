package sshproxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// list is the rule file that a denial points to.
const list = "allowed-ssh.txt"

// denial is the body of a refusal, with the same keys as the HTTPS side's.
type denial struct {
	Denied  bool          `json:"denied"`
	Reason  policy.Reason `json:"reason"`
	Meaning string        `json:"meaning"`
	Detail  string        `json:"detail"`
	Kind    policy.Kind   `json:"kind"`
	Host    string        `json:"host"`
	List    string        `json:"list,omitempty"`
	Command string        `json:"command,omitempty"` // on the host
}

// explain turns a policy's denial of host into a refusal.
func explain(host hostname.Name, reason policy.Reason) *refusal {
	message := fmt.Sprintf("SSH to %s is not allowed", host)
	if reason != policy.NoRule {
		message += ": " + reason.Meaning()
	}
	return &refusal{status: http.StatusForbidden, reason: reason, message: message, host: host.String(), port: sshPort}
}

// response renders a refusal. The message stands in the status line as well:
// several proxy commands (nc, socat) show their user nothing else.
func (r *refusal) response(instance string, wantJSON bool) []byte {
	d := denial{
		Denied: true, Reason: r.reason, Meaning: r.reason.Meaning(), Detail: r.message,
		Kind: policy.KindSSH, Host: r.host,
	}
	rootcell := "rootcell"
	if instance != "" && instance != "default" {
		rootcell += " -i " + instance
	}
	switch r.reason {
	case policy.NoRule, policy.Revoked:
		d.List, d.Command = list, rootcell+" allow --ssh "+r.host
	case policy.BadPolicy:
		d.List, d.Command = list, rootcell+" policy check"
	}
	contentType, body := "text/plain; charset=utf-8", d.text()
	if wantJSON {
		contentType = "application/json"
		encoded, err := json.Marshal(d)
		if err == nil {
			body = string(encoded) + "\n"
		}
	}
	var b strings.Builder
	phrase := "rootcell: " + d.Detail
	if d.Command != "" {
		phrase += "; on the host run: " + d.Command
	}
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", r.status, printable(phrase))
	fmt.Fprintf(&b, "Rootcell-Deny: %s\r\n", r.reason)
	if r.status == http.StatusMethodNotAllowed {
		b.WriteString("Allow: CONNECT\r\n")
	}
	b.WriteString("Content-Type: " + contentType + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\nConnection: close\r\n\r\n")
	b.WriteString(body)
	return []byte(b.String())
}

func (d denial) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "rootcell: %s (%s)\n", printable(d.Detail), d.Reason)
	if d.List != "" {
		fmt.Fprintf(&b, "The list that decides is %s. On the host, run:\n\n    %s\n", d.List, d.Command)
	}
	return b.String()
}

// printable keeps what a client sent from breaking the status line or steering a
// terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
