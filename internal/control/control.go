// Package control is the language between the host and the firewall daemon: the
// requests that may be made of it, its answers, the codec that bounds both, and
// the client of its Unix socket. The server is package firewall.
//
// One connection carries one request: a line of JSON. The answer is one or more
// lines of JSON, each a Response; the last one has End set, so that a stream
// that was cut is never taken for a complete one.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/policy"
)

// Version is the schema version of every message. It grows only when a field
// changes its meaning; fields that are added do not change it.
const Version = 1

// The verbs of a Request.
const (
	VerbReload = "reload" // answers with Response.Reload
	VerbStatus = "status" // answers with Response.Status
	VerbLog    = "log"    // answers with any number of Response.Event
	VerbGrant  = "grant"  // answers with Response.Reload
	VerbRevoke = "revoke" // answers with Response.Reload
)

// Limits of a request.
const (
	MaxLine  = 4096                // octets of Request.Line
	MaxGrant = 30 * 24 * time.Hour // longest life of a grant
	MinGrant = time.Second         // shortest life of a grant
	MaxLog   = 100_000             // largest Request.Limit
	AllLog   = 10_000              // past events sent where Request.Limit is 0
	maxHost  = 255
)

// Request asks the daemon for one thing. Fields that a verb does not name must be zero.
type Request struct {
	Version int    `json:"version"`
	Verb    string `json:"verb"`

	// Kind and Line are the rule of grant and revoke: a policy.Kind and a line as it
	// would stand in that kind's file.
	Kind string `json:"kind,omitempty"`
	Line string `json:"line,omitempty"`
	// For is the life of a grant as in time.ParseDuration, MinGrant to MaxGrant.
	For string `json:"for,omitempty"`
	// All makes revoke end every grant; Kind and Line are empty then.
	All bool `json:"all,omitempty"`

	// Follow keeps log going until the connection ends.
	Follow bool `json:"follow,omitempty"`
	// Denied selects denials, Host one host; Since leaves out what is older; Limit is
	// the most past events that are sent, the newest ones (0: AllLog).
	Denied bool      `json:"denied,omitempty"`
	Host   string    `json:"host,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	Limit  int       `json:"limit,omitempty"`
}

// Duration returns For. It is zero where For is empty or was not validated.
func (r Request) Duration() time.Duration {
	d, err := time.ParseDuration(r.For)
	if err != nil {
		return 0
	}
	return d
}

// Validate reports what is wrong with a request, for the person who made it.
// It does not judge whether Line is a good rule: the daemon's policy parser does.
func (r Request) Validate() error {
	if r.Version != Version {
		return fmt.Errorf("reading a control request: version %d is not supported, only %d; update rootcell on the host or provision the firewall again", r.Version, Version)
	}
	rest := r
	rest.Version, rest.Verb = 0, ""
	switch r.Verb {
	case VerbReload, VerbStatus:
	case VerbLog:
		rest.Follow, rest.Denied, rest.Host, rest.Since, rest.Limit = false, false, "", time.Time{}, 0
		if err := r.validateLog(); err != nil {
			return err
		}
	case VerbGrant:
		rest.Kind, rest.Line, rest.For = "", "", ""
		if err := r.validateGrant(); err != nil {
			return err
		}
	case VerbRevoke:
		rest.Kind, rest.Line, rest.All = "", "", false
		if err := r.validateRevoke(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("reading a control request: unknown verb %q; use reload, status, log, grant or revoke", r.Verb)
	}
	if rest != (Request{}) {
		return fmt.Errorf("reading a control request: %q has a field that the verb does not take", r.Verb)
	}
	return nil
}

func (r Request) validateLog() error {
	if r.Limit < 0 || r.Limit > MaxLog {
		return fmt.Errorf("reading a control request: the number of events must be 0 to %d, not %d", MaxLog, r.Limit)
	}
	if len(r.Host) > maxHost {
		return errors.New("reading a control request: the host to look for is too long")
	}
	return nil
}

func (r Request) validateGrant() error {
	if err := r.validateRule(); err != nil {
		return err
	}
	d, err := time.ParseDuration(r.For)
	if err != nil {
		return fmt.Errorf("reading the life of a grant %q: use a duration such as 30m or 2h", r.For)
	}
	if d < MinGrant || d > MaxGrant {
		return fmt.Errorf("reading the life of a grant %q: it must be between %s and %s", r.For, MinGrant, MaxGrant)
	}
	return nil
}

func (r Request) validateRevoke() error {
	if !r.All {
		return r.validateRule()
	}
	if r.Kind != "" || r.Line != "" {
		return errors.New("reading a control request: revoke takes either a rule or all, not both")
	}
	return nil
}

func (r Request) validateRule() error {
	if !slices.Contains(policy.Kinds(), policy.Kind(r.Kind)) {
		return fmt.Errorf("reading a control request: unknown kind %q; use dns, https or ssh", r.Kind)
	}
	if strings.TrimSpace(r.Line) == "" || len(r.Line) > MaxLine {
		return fmt.Errorf("reading a control request: the rule must have 1 to %d characters", MaxLine)
	}
	// Invariant: a grant is one line. A line break would smuggle a second rule in,
	// which the message, the audit log and the expiry do not know of (TestValidateRefuses).
	if strings.ContainsFunc(r.Line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
		return errors.New("reading a control request: the rule must not contain line breaks or control characters")
	}
	return nil
}

// Response is one line of an answer. Exactly one of Error, Status, Reload and
// Event is set, or none in the line that ends a log.
type Response struct {
	Version int           `json:"version"`
	Error   *Error        `json:"error,omitempty"`
	Status  *Status       `json:"status,omitempty"`
	Reload  *ReloadResult `json:"reload,omitempty"`
	// Event is one line of the audit log, unchanged.
	Event json.RawMessage `json:"event,omitempty"`
	// End marks the last line of the answer.
	End bool `json:"end,omitempty"`
}

// Error codes.
const (
	CodeInvalid = "invalid" // the request makes no sense; trying again will not help
	CodeFailed  = "failed"  // the daemon could not do it
	CodeBusy    = "busy"    // too many control connections
	CodeRefused = "refused" // the caller is neither root nor the daemon's user
)

// Error is a refusal or a failure of the daemon.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }
