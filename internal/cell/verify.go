package cell

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
	"github.com/rootcell-ai/rootcell/internal/probe"
	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/sshx"
)

// Check is one probe of the boundary.
type Check struct {
	Where   string  `json:"where"` // agent, firewall or host: who looked
	Name    string  `json:"name"`  // stable, kebab-case
	OK      bool    `json:"ok"`
	Skipped bool    `json:"skipped"` // it could not be decided, for the reason in Detail
	Detail  string  `json:"detail"`
	Seconds float64 `json:"seconds"`
}

// Verify probes the boundary of a running cell: as root from inside the agent,
// and from the far sides of what the agent tries: the firewall's counters and
// log, and listeners on this host that nothing may reach. Each is called with
// every result as it comes. It reports whether all held.
//
// Invariant: a probe counts as passed only when it ran and its result arrived;
// a run that ends early is an error (TestVerifyNeedsEveryResult).
func (c *Cell) Verify(ctx context.Context, each func(Check)) (held bool, err error) {
	l, err := c.attach(ctx, provider.RoleFirewall, provider.RoleAgent)
	if err != nil {
		return false, err
	}
	defer l.Close()
	v, err := c.newVerification(l)
	if err != nil {
		return false, err
	}
	v.each = func(check Check) {
		if !check.OK && !check.Skipped {
			v.failed = true
		}
		each(check)
	}
	sinks, err := listenSinks()
	if err != nil {
		return false, err
	}
	defer sinks.close()
	v.request.Unreachable = sinks.targets()

	var before, after probe.Firewall
	if err := l.ask(ctx, nil, &before, "probe"); err != nil {
		return false, err
	}
	began := time.Now()
	if err := v.agent(ctx, l); err != nil {
		return false, err
	}
	if err := l.ask(ctx, nil, &after, "probe"); err != nil {
		return false, err
	}
	v.firewall(before, after)
	if err := v.log(ctx, l, began); err != nil {
		return false, err
	}
	v.each(sinks.check())
	return !v.failed, nil
}

// verification is one run of Verify.
type verification struct {
	cell    *Cell
	request probe.Request
	each    func(Check)
	failed  bool
}

// newVerification chooses the hosts to probe with by the live lists: some that
// they allow, and names nobody else uses that they do not.
func (c *Cell) newVerification(l *link) (*verification, error) {
	lists, err := c.lists()
	if err != nil {
		return nil, err
	}
	files := policyfile.Files{}
	for _, kind := range policy.Kinds() {
		name := policyfile.FileName(kind)
		files[kind] = policyfile.File{Name: name, Text: lists[name]}
	}
	p, _ := policyfile.Compile(files)
	cert, _, err := c.readCA()
	if err != nil {
		return nil, err
	}
	state, err := c.State()
	if err != nil {
		return nil, err
	}
	v := &verification{cell: c, request: probe.Request{
		Schema: probe.Schema, Firewall: state.FirewallIP.String(), CACert: string(cert),
		AllowedDNS:   allowedHost(files, policy.KindDNS, func(n hostname.Name) bool { return p.DNS(n).Allow }),
		AllowedHTTPS: allowedHost(files, policy.KindHTTPS, func(n hostname.Name) bool { return p.TLS(n).Allow && !p.PathScoped(n) && p.DNS(n).Allow }),
		AllowedSSH:   allowedHost(files, policy.KindSSH, func(n hostname.Name) bool { return p.SSH(n).Allow }),
	}}
	canary, err := newCanary()
	if err != nil {
		return nil, err
	}
	v.request.DeniedDNS = deniedHost(canary, func(n hostname.Name) bool { return p.DNS(n).Allow })
	v.request.DeniedHTTPS = deniedHost(canary, func(n hostname.Name) bool { return p.TLS(n).Allow })
	v.request.DeniedSSH = deniedHost(canary, func(n hostname.Name) bool { return p.SSH(n).Allow })
	return v, nil
}

func newCanary() (string, error) {
	var id [6]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", fmt.Errorf("making a name for the probes: %w", err)
	}
	return "canary-" + hex.EncodeToString(id[:]), nil
}

// allowedHost is the first host that stands in a list by its own name and
// passes, "" when there is none.
func allowedHost(files policyfile.Files, kind policy.Kind, allowed func(hostname.Name) bool) string {
	file := files[kind]
	rules, _ := policyfile.Parse(kind, file.Name, []byte(file.Text))
	for _, r := range rules {
		if name, err := hostname.Parse(r.Host.String()); err == nil && allowed(name) {
			return name.String()
		}
	}
	return ""
}

// deniedHost is a name that nobody uses and that is not allowed, "" when
// everything is.
func deniedHost(canary string, allowed func(hostname.Name) bool) string {
	for _, base := range []string{"verify.example", "example.com", "example.net"} {
		if name, err := hostname.Parse(canary + "." + base); err == nil && !allowed(name) {
			return name.String()
		}
	}
	return ""
}

// agent runs the probes inside the agent, as root.
func (v *verification) agent(ctx context.Context, l *link) error {
	request, err := json.Marshal(v.request)
	if err != nil {
		return fmt.Errorf("encoding the probes: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := 0
	lines := &lineWriter{each: func(line []byte) error {
		var r probe.Result
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("reading a probe's result: %w", err)
		}
		results++
		v.each(v.judge(ctx, r))
		return nil
	}, failed: cancel}
	var stderr bytes.Buffer
	code, err := l.agent.Run(ctx, sshx.Command{
		Argv: []string{"sudo", "-n", "/usr/local/bin/rootcell-guest", "probe"}, Stdin: bytes.NewReader(request),
		Stdout: lines, Stderr: &headWriter{to: &stderr, left: 4 << 10},
	})
	switch {
	case lines.err != nil:
		return lines.err
	case err != nil:
		return v.cell.agentError(err)
	case code != 0 || results == 0:
		return fmt.Errorf("running the probes in the agent: status %d after %d results: %s", code, results, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// judge turns a result of the agent into a check. What should work and does
// not is no hole when this host cannot do it either.
func (v *verification) judge(ctx context.Context, r probe.Result) Check {
	check := Check{Where: "agent", Name: r.Name, OK: r.OK, Skipped: r.Skipped, Detail: strings.ReplaceAll(strings.TrimSpace(r.Detail), "\n", "; "), Seconds: r.Seconds}
	if r.OK {
		return check
	}
	target, port := "", ""
	switch r.Name {
	case "dns-allowed", "https-allowed":
		target, port = v.request.AllowedHTTPS, "443"
		if target == "" || r.Name == "dns-allowed" {
			target = v.request.AllowedDNS
		}
	case "ssh-allowed":
		target, port = v.request.AllowedSSH, "22"
	}
	if target != "" {
		if err := reachable(ctx, target, port); err != nil {
			check.Skipped = true
			check.Detail = fmt.Sprintf("not decided, because this host cannot reach %s either (%v): %s", target, err, r.Detail)
		}
	}
	return check
}

// hostReach bounds the question whether this host itself can reach a server.
const hostReach = 5 * time.Second

func reachable(ctx context.Context, host, port string) error {
	ctx, cancel := context.WithTimeout(ctx, hostReach)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	return conn.Close()
}

// log looks for the canaries in the firewall's own record: each must be there
// as a denial and never as anything else.
func (v *verification) log(ctx context.Context, l *link, since time.Time) error {
	// Clocks of host and guest differ; the names are new anyway.
	options := LogOptions{Since: since.Add(-time.Hour)}
	seen := map[string][]audit.Event{}
	if err := l.log(ctx, options, func(e audit.Event, _ json.RawMessage) error {
		seen[e.Kind+" "+e.Host] = append(seen[e.Kind+" "+e.Host], e)
		return nil
	}); err != nil {
		return err
	}
	for _, canary := range []struct{ kind, host string }{
		{audit.KindDNS, v.request.DeniedDNS}, {audit.KindHTTPS, v.request.DeniedHTTPS}, {audit.KindSSH, v.request.DeniedSSH},
	} {
		check := Check{Where: "firewall", Name: "log-" + canary.kind}
		events := seen[canary.kind+" "+canary.host]
		switch {
		case canary.host == "":
			check.OK, check.Skipped, check.Detail = true, true, "the lists deny no name of this kind"
		case len(events) == 0:
			check.Detail = "the log has no denial of " + canary.host
		default:
			check.OK, check.Detail = true, fmt.Sprintf("%s is logged as denied (%s)", canary.host, events[0].Reason)
			for _, e := range events {
				if e.Verdict != audit.Deny || e.Upstream != "" {
					check.OK, check.Detail = false, fmt.Sprintf("the log says that %s was let through", canary.host)
				}
			}
		}
		v.each(check)
	}
	return nil
}
