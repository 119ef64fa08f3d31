// Package audit records what the firewall decided: one event a decision, one JSON
// line an event, in a file whose size is capped.
//
// Recording never holds up the data path and never loses an event in silence:
// what could not be written is counted, and the count is part of Stats.
package audit

import (
	"strings"
	"time"
)

// Kinds of decision.
const (
	KindDNS   = "dns"
	KindHTTPS = "https"
	KindSSH   = "ssh"
	KindL4    = "l4"
)

// Verdicts.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Event is one decision. The zero value of a field means that it does not apply;
// it is written all the same, so that every line has the same keys. Strings may
// hold whatever a client sent: writing escapes and shortens them.
type Event struct {
	Time       time.Time `json:"time"` // Record fills in the current time when zero
	Instance   string    `json:"instance"`
	Generation uint64    `json:"generation"` // of the policy that decided
	Conn       string    `json:"conn"`
	Kind       string    `json:"kind"`
	Verdict    string    `json:"verdict"`
	Reason     string    `json:"reason"`
	Rule       string    `json:"rule"` // "allowed-https.txt:12"
	Host       string    `json:"host"`
	Port       int       `json:"port"`
	Method     string    `json:"method"` // for DNS the query type
	Path       string    `json:"path"`
	Upstream   string    `json:"upstream"` // address and port that was dialled or asked
	Status     int       `json:"status"`   // HTTP status; for DNS the response code
	BytesUp    int64     `json:"bytes_up"`
	BytesDown  int64     `json:"bytes_down"`
	DurationMS float64   `json:"duration_ms"`
	// Opaque marks a flow whose content was relayed without being looked at (an SSH
	// session, a WebSocket after its handshake). Lines have the key only when it is
	// true.
	Opaque bool `json:"opaque,omitempty"`
}

// Recorder takes events. Record does not block on I/O and may be called from any
// goroutine.
type Recorder interface {
	Record(Event)
}

// Discard is a Recorder for tests and tools that keep no log.
type Discard struct{}

// Record forgets the event.
func (Discard) Record(Event) {}

// Filter selects events; its zero value selects all.
type Filter struct {
	Kind   string
	Denied bool      // denials only
	Host   string    // this host and the names below it
	Since  time.Time // events at or after this time
}

// Match reports whether f selects e.
func (f Filter) Match(e *Event) bool {
	if f.Kind != "" && e.Kind != f.Kind {
		return false
	}
	if f.Denied && e.Verdict != Deny {
		return false
	}
	if f.Host != "" && !below(e.Host, strings.ToLower(strings.TrimSuffix(f.Host, "."))) {
		return false
	}
	return !e.Time.Before(f.Since)
}

func below(host, suffix string) bool {
	rest, ok := strings.CutSuffix(host, suffix)
	return ok && (rest == "" || strings.HasSuffix(rest, "."))
}
