package policytest

import (
	"fmt"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

const scheme = "https://"

// Result is what a case came to.
type Result struct {
	Case Case
	Got  policy.Decision
	// Difference says how Got differs from what the case expects, and is empty
	// when it does not.
	Difference string
}

// Run decides every case by the lists of the file or, when it brings none, by
// live. The decision is the one that package policy makes; what only a
// listener sees, such as addresses and certificates, is left to runners that
// make the request.
func (f File) Run(live policyfile.Files) []Result {
	lists := live
	if f.HasLists {
		lists = f.Lists
	}
	p, _ := policyfile.Compile(lists)
	results := make([]Result, len(f.Cases))
	for i, c := range f.Cases {
		got := c.Decide(p)
		results[i] = Result{Case: c, Got: got, Difference: c.Compare(got)}
	}
	return results
}

// Authority returns the authority of the URL and the target of the request,
// byte for byte: nothing is decoded or resolved.
func (c Case) Authority() (authority, target string) {
	rest := strings.TrimPrefix(c.URL, scheme)
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		return rest, "/"
	}
	if rest[end] != '/' {
		return rest[:end], "/" + rest[end:]
	}
	return rest[:end], rest[end:]
}

// ServerName returns the server name of the handshake: that of the case, or
// the host it asks for.
func (c Case) ServerName() string {
	if c.SNI != "" {
		return c.SNI
	}
	if c.URL == "" {
		return c.Host
	}
	authority, _ := c.Authority()
	host, _, _ := strings.Cut(authority, ":")
	return host
}

// Decide asks the policy what a listener would ask, in the order in which a
// connection gets there: for HTTPS the handshake, the authority, the agreement
// of both, the port, the request.
func (c Case) Decide(p *policy.Policy) policy.Decision {
	switch c.Kind {
	case policy.KindDNS:
		name, err := hostname.Parse(c.Host)
		if err != nil {
			return policy.Deny(policy.Malformed)
		}
		return p.DNS(name)
	case policy.KindSSH:
		name, port, err := hostname.ParseAuthority(c.Host)
		switch {
		case err != nil:
			return policy.Deny(policy.Malformed)
		case port != 0 && port != 22:
			return policy.Deny(policy.Port)
		}
		return p.SSH(name)
	}
	return c.decideHTTPS(p)
}

func (c Case) decideHTTPS(p *policy.Policy) policy.Decision {
	sni, err := hostname.Parse(c.ServerName())
	if err != nil {
		return policy.Deny(policy.Malformed)
	}
	if d := p.TLS(sni); !d.Allow || c.URL == "" {
		return d
	}
	authority, target := c.Authority()
	host, port, err := hostname.ParseAuthority(authority)
	switch {
	case err != nil:
		return policy.Deny(policy.Malformed)
	case host != sni:
		return policy.Deny(policy.SNIHostMismatch)
	case port != 0 && port != 443:
		return policy.Deny(policy.Port)
	}
	return p.HTTPS(policy.Request{Host: host, Method: c.Method, Target: target})
}

// Compare says how a decision differs from what the case expects; it is empty
// when it does not. A case without a rule does not care which line decided.
func (c Case) Compare(got policy.Decision) string {
	verdict := Deny
	if got.Allow {
		verdict = Allow
	}
	switch {
	case verdict != c.Verdict || got.Reason != c.Reason:
		return fmt.Sprintf("it is %s, want %s", outcome(verdict, got.Reason, got.Rule), outcome(c.Verdict, c.Reason, c.Rule))
	case c.Rule != "" && got.Rule != c.Rule:
		return fmt.Sprintf("the line that decides is %q, want %q", got.Rule, c.Rule)
	}
	return ""
}

func outcome(v Verdict, reason policy.Reason, rule string) string {
	s := string(v)
	if reason != "" {
		s += " (" + string(reason) + ")"
	}
	if rule != "" {
		s += " by " + rule
	}
	return s
}
