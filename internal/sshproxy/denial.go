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

// denial is the body of a refusal.
type denial struct {
	Code    policy.Reason `json:"code"`
	Kind    policy.Kind   `json:"kind"`
	Host    string        `json:"host,omitempty"`
	List    string        `json:"list,omitempty"`
	Message string        `json:"message"`
	Run     string        `json:"run,omitempty"` // on the host
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
	d := denial{Code: r.reason, Kind: policy.KindSSH, Host: r.host, Message: r.message}
	switch r.reason {
	case policy.NoRule, policy.Revoked:
		d.List = list
		d.Run = "rootcell allow --ssh " + r.host
		if instance != "default" {
			d.Run = "rootcell -i " + instance + " allow --ssh " + r.host
		}
	case policy.BadPolicy:
		d.List = list
		d.Run = "rootcell policy check"
		if instance != "default" {
			d.Run = "rootcell -i " + instance + " policy check"
		}
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
	phrase := "rootcell: " + d.Message
	if d.Run != "" {
		phrase += "; on the host run: " + d.Run
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
	fmt.Fprintf(&b, "rootcell: %s (%s)\n", printable(d.Message), d.Code)
	if d.List != "" {
		fmt.Fprintf(&b, "The list that decides is %s. On the host, run:\n\n    %s\n", d.List, d.Run)
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
