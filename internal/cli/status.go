package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/ui"
)

type statusCmd struct{}

func (*statusCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	r, err := c.Status(a.ctx)
	if err != nil {
		return err
	}
	return a.answer(r, func() { a.printStatus(c, r) })
}

func (a *app) printStatus(c *cell.Cell, r cell.Report) {
	rows := [][]string{{"instance", r.Instance}, {"directory", r.Directory}}
	add := func(name, format string, args ...any) {
		rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
	}
	if !r.Exists {
		add("state", "does not exist; %s creates and starts it", c.Hint("up"))
	}
	add("provider", "%s", r.Provider)
	for _, role := range []provider.Role{provider.RoleAgent, provider.RoleFirewall} {
		add(string(role), "%s", machineText(c, r, role))
	}
	if r.Machines.Accel != "" {
		add("acceleration", "%s", joinNonEmpty(r.Machines.Accel, r.Machines.AccelReason))
	}
	if r.State != nil {
		add("subnet", "%s", r.State.Subnet)
		if r.State.Provider != "" && !r.Provisioned {
			add("provisioned", "no; %s does it", c.Hint("up"))
		}
	}
	if r.Pending {
		add("configuration", "changed since the machines were started; %s applies it", c.Hint("up"))
	}
	a.firewallRows(c, r, add)
	if r.State != nil && r.State.LastError != nil {
		e := r.State.LastError
		add("last error", "%s, %s: %s", e.Time.Local().Format(time.DateTime), e.Command, e.Text)
	}
	for _, p := range r.Problems {
		add("problem", "%s", p)
	}
	add("rootcell", "%s", r.Version)
	a.ui.Table(nil, rows)
}

func machineText(c *cell.Cell, r cell.Report, role provider.Role) string {
	m := r.Machines.Machine(role)
	parts := []string{string(m.State)}
	if m.Detail != "" {
		parts[0] += ": " + m.Detail
	}
	if r.State != nil {
		ip := r.State.AgentIP
		if role == provider.RoleFirewall {
			ip = r.State.FirewallIP
		}
		parts = append(parts, ip.String())
	}
	if !m.Started.IsZero() {
		parts = append(parts, "up "+ui.Elapsed(time.Since(m.Started)))
	}
	if m.Outdated {
		parts = append(parts, "a newer image is there, "+c.Hint("reset")+" takes it")
	}
	return strings.Join(parts, ", ")
}

func (a *app) firewallRows(c *cell.Cell, r cell.Report, add func(string, string, ...any)) {
	if r.FirewallError != "" {
		add("policy", "not known: %s", r.FirewallError)
	}
	f := r.Firewall
	if f == nil {
		return
	}
	inForce := "the live lists are in force"
	if !r.ListsInForce {
		inForce = "the live lists are NOT in force, " + c.Hint("allow") + " pushes them"
	}
	add("policy", "generation %d, %s", f.Generation, inForce)
	for _, kind := range policy.Kinds() {
		p, ok := f.Policy[string(kind)]
		if !ok {
			continue
		}
		text := fmt.Sprintf("%d rules", p.Rules)
		if p.Error != "" {
			text += ", " + p.Error
		}
		add("  "+string(kind), "%s", text)
	}
	for _, g := range f.Grants {
		add("  granted", "%s %s until %s", g.Kind, g.Line, g.Expires.Local().Format(time.DateTime))
	}
	add("connections", "%d HTTPS, %d SSH", f.Flows.HTTPS, f.Flows.SSH)
	if f.Audit.Dropped > 0 {
		add("audit", "%d events could not be written", f.Audit.Dropped)
	}
	add("daemon", "%s, up %s", f.Version, ui.Elapsed(time.Since(f.Started)))
}

func joinNonEmpty(parts ...string) string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, ", ")
}
