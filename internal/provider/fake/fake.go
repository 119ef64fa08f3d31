// Package fake is a provider that runs its machines in memory, for tests of
// what lies above the seam. It keeps the whole contract of package provider and
// passes providertest; nothing of it touches the disk, a process or the network.
package fake

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

var (
	_ provider.Provider      = (*Provider)(nil)
	_ provider.Resetter      = (*Provider)(nil)
	_ provider.ConsoleReader = (*Provider)(nil)
	_ provider.Preflighter   = (*Provider)(nil)
)

// Options are the parts of a fake that a test may replace.
type Options struct {
	// Serve plays the firewall's SSH server on the far end of one DialFirewall
	// connection, in a goroutine of its own, and closes conn. Nil sends an SSH
	// version line and then discards what it reads.
	Serve func(id provider.CellID, conn net.Conn)

	// Findings is what Preflight returns. Nil is one finding that is ok.
	Findings []provider.Finding
}

// Provider is the fake. Make one with New.
type Provider struct {
	opts Options

	mu    sync.Mutex // protects all the following
	cells map[provider.CellID]*cell
	fail  map[string]error
	calls []string
	boots int
}

type cell struct {
	spec     provider.Spec
	machines map[provider.Role]*machine
}

// machine is one machine; the zero value has never been started.
type machine struct {
	wanted  bool // Apply started it and nobody stopped it
	running bool
	started provider.Machine // as it was when it was started
	disk    *provider.Machine
	bootID  string
	since   time.Time
	conns   map[net.Conn]bool
}

// New returns a fake without any cell.
func New(opts Options) *Provider {
	if opts.Serve == nil {
		opts.Serve = banner
	}
	return &Provider{opts: opts, cells: map[provider.CellID]*cell{}, fail: map[string]error{}}
}

// banner does what is visible of an SSH server before the key exchange.
func banner(_ provider.CellID, conn net.Conn) {
	defer conn.Close()
	if _, err := conn.Write([]byte("SSH-2.0-fake\r\n")); err != nil {
		return
	}
	buf := make([]byte, 512)
	for {
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}

// Kill ends a machine as if its process had died. It reports whether it ran.
func (p *Provider) Kill(id provider.CellID, role provider.Role) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.cells[id]
	if !ok || !c.machines[role].running {
		return false
	}
	c.machines[role].end()
	return true
}

// FailNext makes the next call of the named method (`Apply`, `Stop`, …) return
// err without doing anything.
func (p *Provider) FailNext(method string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail[method] = err
}

// Calls returns the names of the methods called so far, in order.
func (p *Provider) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// Applied returns the Spec of the latest Apply of a cell.
func (p *Provider) Applied(id provider.CellID) (provider.Spec, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.cells[id]
	if !ok {
		return provider.Spec{}, false
	}
	return c.spec, true
}

// enter records a call and gives its injected error. It holds p.mu when it
// returns nil; the caller unlocks.
func (p *Provider) enter(ctx context.Context, method string) error {
	p.mu.Lock()
	p.calls = append(p.calls, method)
	if err, ok := p.fail[method]; ok {
		delete(p.fail, method)
		p.mu.Unlock()
		return err
	}
	if err := ctx.Err(); err != nil {
		p.mu.Unlock()
		return err
	}
	return nil
}

func (p *Provider) find(id provider.CellID) (*cell, error) {
	c, ok := p.cells[id]
	if !ok {
		return nil, fmt.Errorf("looking for the cell %q: %w", id.Instance, provider.ErrNotFound)
	}
	return c, nil
}

// steps is what has to be done for spec, in order.
func (p *Provider) steps(spec provider.Spec) []provider.Step {
	var steps []provider.Step
	c := p.cells[spec.ID]
	for _, role := range []provider.Role{provider.RoleFirewall, provider.RoleAgent} {
		want := spec.Machine(role)
		switch {
		case c == nil || !c.machines[role].running:
			steps = append(steps, provider.Step{Role: role, Text: fmt.Sprintf("starting %q", want.Name)})
		case !reflect.DeepEqual(c.machines[role].effective(role, want), c.machines[role].started):
			steps = append(steps, provider.Step{Role: role, Text: fmt.Sprintf("restarting %q", want.Name)})
		}
	}
	return steps
}

// effective is what a machine would be started with: disks stay what they are,
// the agent keeps the image its disk was made from, and a Config counts by its
// hash.
func (m *machine) effective(role provider.Role, want provider.Machine) provider.Machine {
	want.ConfigHash = want.EffectiveConfigHash()
	want.Config = nil
	switch {
	case m.disk == nil:
	case role == provider.RoleFirewall:
		want.DiskBytes = m.disk.DiskBytes
	default:
		if m.outdated(want) {
			want.Image, want.Kernel, want.Initrd = m.disk.Image, m.disk.Kernel, m.disk.Initrd
		}
		want.DiskBytes = max(want.DiskBytes, m.disk.DiskBytes)
	}
	return want
}

func (m *machine) outdated(want provider.Machine) bool {
	return m.disk != nil && (want.Image != m.disk.Image || want.Kernel != m.disk.Kernel)
}

func (m *machine) end() {
	m.running, m.bootID, m.since = false, "", time.Time{}
	for conn := range m.conns {
		conn.Close()
	}
	m.conns = nil
}
