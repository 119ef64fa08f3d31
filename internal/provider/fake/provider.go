package fake

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// Plan implements provider.Provider.
func (p *Provider) Plan(ctx context.Context, spec provider.Spec) (provider.Plan, error) {
	if err := spec.Validate(); err != nil {
		return provider.Plan{}, err
	}
	if err := p.enter(ctx, "Plan"); err != nil {
		return provider.Plan{}, err
	}
	defer p.mu.Unlock()
	return provider.Plan{Steps: p.steps(spec)}, nil
}

// Apply implements provider.Provider.
func (p *Provider) Apply(ctx context.Context, spec provider.Spec, progress provider.Progress) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	if err := p.enter(ctx, "Apply"); err != nil {
		return err
	}
	steps := p.steps(spec)
	c := p.cells[spec.ID]
	if c == nil {
		c = &cell{machines: map[provider.Role]*machine{provider.RoleAgent: {}, provider.RoleFirewall: {}}}
		p.cells[spec.ID] = c
	}
	c.spec = spec
	p.mu.Unlock()
	for _, step := range steps {
		if progress != nil {
			progress(step)
		}
		if err := p.start(ctx, spec, step.Role); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) start(ctx context.Context, spec provider.Spec, role provider.Role) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("starting the %s of cell %q: %w", role, spec.ID.Instance, err)
	}
	c, err := p.find(spec.ID)
	if err != nil {
		return err
	}
	m := c.machines[role]
	m.end()
	m.started = m.effective(role, spec.Machine(role))
	if m.disk == nil {
		m.disk = &provider.Machine{}
	}
	*m.disk = m.started
	p.boots++
	m.wanted, m.running, m.bootID, m.since = true, true, fmt.Sprintf("boot-%d", p.boots), time.Now()
	return nil
}

// Status implements provider.Provider.
func (p *Provider) Status(ctx context.Context, id provider.CellID) (provider.Status, error) {
	if err := p.enter(ctx, "Status"); err != nil {
		return provider.Status{}, err
	}
	defer p.mu.Unlock()
	c, err := p.find(id)
	if err != nil {
		return provider.Status{}, err
	}
	st := provider.Status{Accel: "none", AccelReason: "machines of the fake provider run nothing", Endpoint: "memory"}
	st.Agent = c.machines[provider.RoleAgent].status()
	st.Agent.Outdated = c.machines[provider.RoleAgent].outdated(c.spec.Agent)
	st.Firewall = c.machines[provider.RoleFirewall].status()
	return st, nil
}

func (m *machine) status() provider.MachineStatus {
	switch {
	case m.running:
		return provider.MachineStatus{State: provider.StateRunning, BootID: m.bootID, Started: m.since}
	case m.wanted:
		return provider.MachineStatus{State: provider.StateUnexpected, Detail: "it was killed"}
	case m.disk != nil:
		return provider.MachineStatus{State: provider.StateStopped}
	}
	return provider.MachineStatus{State: provider.StateMissing}
}

// DialFirewall implements provider.Provider.
func (p *Provider) DialFirewall(ctx context.Context, id provider.CellID) (net.Conn, error) {
	if err := p.enter(ctx, "DialFirewall"); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	c, err := p.find(id)
	if err != nil {
		return nil, err
	}
	m := c.machines[provider.RoleFirewall]
	if !m.running {
		return nil, fmt.Errorf("dialing the firewall of cell %q: %w", id.Instance, provider.ErrNotRunning)
	}
	near, far := net.Pipe()
	if m.conns == nil {
		m.conns = map[net.Conn]bool{}
	}
	m.conns[far] = true
	go p.opts.Serve(id, far)
	return near, nil
}

// Stop implements provider.Provider.
func (p *Provider) Stop(ctx context.Context, id provider.CellID) error {
	if err := p.enter(ctx, "Stop"); err != nil {
		return err
	}
	defer p.mu.Unlock()
	c, err := p.find(id)
	if err != nil {
		return err
	}
	for _, m := range c.machines {
		m.end()
		m.wanted = false
	}
	return nil
}

// Destroy implements provider.Provider.
func (p *Provider) Destroy(ctx context.Context, id provider.CellID) error {
	if err := p.enter(ctx, "Destroy"); err != nil {
		return err
	}
	defer p.mu.Unlock()
	if c, ok := p.cells[id]; ok {
		for _, m := range c.machines {
			m.end()
		}
		delete(p.cells, id)
	}
	return nil
}

// ResetAgent implements provider.Resetter.
func (p *Provider) ResetAgent(ctx context.Context, id provider.CellID) error {
	if err := p.enter(ctx, "ResetAgent"); err != nil {
		return err
	}
	defer p.mu.Unlock()
	c, err := p.find(id)
	if err != nil {
		return err
	}
	c.machines[provider.RoleAgent].end()
	*c.machines[provider.RoleAgent] = machine{}
	return nil
}

// Console implements provider.ConsoleReader.
func (p *Provider) Console(ctx context.Context, id provider.CellID, role provider.Role) ([]byte, error) {
	if err := p.enter(ctx, "Console"); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	c, err := p.find(id)
	if err != nil {
		return nil, err
	}
	if m := c.machines[role]; m == nil || m.disk == nil {
		return nil, nil
	}
	return fmt.Appendf(nil, "fake %s of %s\n", role, id.Instance), nil
}

// Preflight implements provider.Preflighter.
func (p *Provider) Preflight(ctx context.Context) []provider.Finding {
	if err := p.enter(ctx, "Preflight"); err != nil {
		return []provider.Finding{{Name: "fake", Level: provider.LevelError, Text: err.Error()}}
	}
	defer p.mu.Unlock()
	if p.opts.Findings != nil {
		return p.opts.Findings
	}
	return []provider.Finding{{Name: "fake", Level: provider.LevelOK, Text: "machines are made of memory"}}
}
