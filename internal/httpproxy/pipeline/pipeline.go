// Package pipeline decides requests. It is the one place through which every
// HTTP/1.1 request and every HTTP/2 stream goes before a byte of it is sent.
//
// The steps are martian request modifiers in a fifo.Group. They judge and do
// not edit: the data planes send the bytes that the client sent, whatever a modifier does to
// its view of the request. Martian's own loop lets a request pass when a modifier fails;
// here an error of any kind is a denial.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/martian/v3"
	"github.com/google/martian/v3/fifo"

	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/deny"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// Gate holds the policy in force; *enforce.Gate is one.
type Gate interface {
	Current() enforce.Snapshot
	Admit(enforce.Flow) (release func(), d policy.Decision)
}

// Exchange is one request on its way and, once admitted, a flow of the gate.
type Exchange struct {
	// Name is the name the connection was opened and certified for.
	Name hostname.Name
	// OnRevoke ends the exchange at once. It may be called from any goroutine.
	OnRevoke func(policy.Decision)

	method, target string
	decision       policy.Decision
	release        func()
}

// Judge implements enforce.Flow.
func (x *Exchange) Judge(p *policy.Policy) policy.Decision {
	return p.HTTPS(policy.Request{Host: x.Name, Method: x.method, Target: x.target})
}

// Revoke implements enforce.Flow.
func (x *Exchange) Revoke(d policy.Decision) {
	d.Reason = policy.Revoked
	x.OnRevoke(d)
}

// Decision returns the policy's decision on an exchange that was judged.
func (x *Exchange) Decision() policy.Decision { return x.decision }

// Release ends the watch over the exchange. It does nothing before admission
// and when repeated.
func (x *Exchange) Release() {
	if x.release != nil {
		x.release()
	}
}

type contextKey struct{}

// With returns a context that carries the exchange to the modifiers.
func With(ctx context.Context, x *Exchange) context.Context {
	return context.WithValue(ctx, contextKey{}, x)
}

// From returns the exchange of a request, nil outside the pipeline.
func From(req *http.Request) *Exchange {
	x, _ := req.Context().Value(contextKey{}).(*Exchange)
	return x
}

// Pipeline is an ordered group of modifiers. It is safe for concurrent use.
type Pipeline struct{ group *fifo.Group }

// New returns the pipeline that checks the form of a request, its authority
// and the policy, and then the given modifiers.
func New(gate Gate, more ...martian.RequestModifier) *Pipeline {
	p := &Pipeline{group: fifo.NewGroup()}
	p.group.AddRequestModifier(martian.RequestModifierFunc(checkForm))
	p.group.AddRequestModifier(martian.RequestModifierFunc(checkAuthority))
	p.group.AddRequestModifier(admit{gate})
	for _, m := range more {
		p.group.AddRequestModifier(m)
	}
	return p
}

// Judge decides one request. Its view has the method, RequestURI (the target as
// it will be sent), Host and Header, and its context an Exchange. The error is
// nil or a *deny.Error.
//
// Invariant: whatever goes wrong in a modifier, a panic included, is a denial
// (TestErrorsAreDenials).
func (p *Pipeline) Judge(req *http.Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = deny.For(policy.BadPolicy, "a check broke down")
		}
	}()
	if From(req) == nil {
		return deny.For(policy.BadPolicy, "a request without its connection's name")
	}
	err = p.group.ModifyRequest(req)
	var denial *deny.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &denial):
		return denial
	}
	return deny.For(policy.BadPolicy, fmt.Sprintf("a check broke down: %v", err))
}

// checkForm refuses what is no plain request to an origin server.
//
// Invariant: no tunnel is ever opened by method (TestForm, B14).
func checkForm(req *http.Request) error {
	switch req.Method {
	case http.MethodConnect:
		return deny.For(policy.Tunnel, "CONNECT is never forwarded")
	case http.MethodTrace:
		return &deny.Error{Decision: policy.Deny(policy.Malformed), Status: http.StatusMethodNotAllowed, Detail: "TRACE is never forwarded"}
	}
	switch target := req.RequestURI; {
	case target == "*" && req.Method == http.MethodOptions:
	case target == "" || target[0] != '/':
		// An absolute-form target would be a second authority, and rules are
		// about the origin-form (B2).
		return deny.For(policy.Malformed, "the request target is not a path")
	}
	return nil
}

// checkAuthority binds the request to the name of its connection.
//
// Invariant: Host or :authority is the name that was judged at the ClientHello,
// minted, resolved and verified, on port 443 (TestAuthority, A3 to A6, B3).
func checkAuthority(req *http.Request) error {
	name, port, err := hostname.ParseAuthority(req.Host)
	if err != nil {
		return deny.For(policy.Malformed, "the request's authority is not a host name")
	}
	if name != From(req).Name {
		return deny.For(policy.SNIHostMismatch, "")
	}
	if port != 0 && port != 443 {
		return deny.For(policy.Port, "")
	}
	return nil
}

// admit asks the policy in force and keeps the exchange under its watch.
type admit struct{ gate Gate }

func (a admit) ModifyRequest(req *http.Request) error {
	x := From(req)
	x.method, x.target = req.Method, req.RequestURI
	x.release, x.decision = a.gate.Admit(x)
	if !x.decision.Allow {
		return &deny.Error{Decision: x.decision}
	}
	if a.gate.Current().Policy.PathScoped(x.Name) {
		return checkOverrides(req, x.decision.Rule)
	}
	return nil
}

// overrides are fields by which frameworks let a request mean another method or
// path than its first line says.
var overrides = []string{
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url",
}

// checkOverrides refuses a request whose method or path might be read from a field.
//
// Invariant: where rules decide by method and path, the request line is the only
// place that says them (TestOverrides, B15).
func checkOverrides(req *http.Request, rule string) error {
	for _, name := range overrides {
		if _, ok := req.Header[name]; ok {
			return &deny.Error{
				Decision: policy.Decision{Reason: policy.AmbiguousPath, Rule: rule},
				Detail:   "the field " + name + " could change the method or path that the rules decide by",
			}
		}
	}
	return nil
}
