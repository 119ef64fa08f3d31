package httpproxy

import (
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/deny"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// recordRefusal writes the denial of a connection that had no request.
func (c *conn) recordRefusal(denial *deny.Error, host string) {
	e := c.event(c.began)
	e.Verdict, e.Reason, e.Rule, e.Host = audit.Deny, string(denial.Reason), denial.Rule, host
	c.srv.cfg.Audit.Record(e)
}

// event returns an event with what is common to all of the connection.
func (c *conn) event(began time.Time) audit.Event {
	return audit.Event{
		Time: began, Instance: c.srv.cfg.Instance, Generation: c.srv.cfg.Gate.Current().Generation,
		Conn: c.id, Kind: audit.KindHTTPS, Host: c.name.String(), Port: httpsPort,
		DurationMS: float64(time.Since(began)) / float64(time.Millisecond),
	}
}

// revocation is the denial of a request that was under way when a reload took
// it or its whole host away, else nil: what ends early for other reasons was allowed.
func (c *conn) revocation(d *policy.Decision) *deny.Error {
	switch {
	case d != nil:
		return &deny.Error{Decision: *d}
	case c.revoked.Load():
		return deny.For(policy.Revoked, "")
	}
	return nil
}

// outcome is what is known of a request when it is over.
type outcome struct {
	began          time.Time
	method, target string
	decision       policy.Decision
	denial         *deny.Error // nil when allowed and completed
	upstream       string
	status         int
	up, down       int64
	opaque         bool
}

// record writes the one event of a request.
func (c *conn) record(o outcome) {
	e := c.event(o.began)
	e.Verdict, e.Rule = audit.Allow, o.decision.Rule
	if o.denial != nil {
		e.Verdict, e.Reason = audit.Deny, string(o.denial.Reason)
		if o.denial.Rule != "" {
			e.Rule = o.denial.Rule
		}
	}
	e.Method, e.Path, e.Upstream, e.Status = o.method, o.target, o.upstream, o.status
	e.BytesUp, e.BytesDown, e.Opaque = o.up, o.down, o.opaque
	c.srv.cfg.Audit.Record(e)
}
