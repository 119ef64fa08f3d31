package cell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/rootcell-ai/rootcell/internal/config"
	"github.com/rootcell-ai/rootcell/internal/provider"
)

// UpOptions say how thorough Up is.
type UpOptions struct {
	// Provision applies the system configuration even where it looks current.
	Provision bool
}

// Up brings both machines to the configured state: it creates what is missing,
// starts what does not run, restarts what runs with other settings, pushes the
// allowlists and provisions an agent that is not. Everything it does is
// idempotent, so a second Up continues after one that was killed.
func (c *Cell) Up(ctx context.Context, o UpOptions) error {
	lock, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	cfg, state, err := c.prepare(ctx)
	if err != nil {
		return err
	}
	l, err := c.upLocked(ctx, cfg, state, o)
	verb := "up"
	if o.Provision {
		verb = "provision"
	}
	c.record(verb, err)
	if err != nil {
		return err
	}
	l.Close()
	return nil
}

// upLocked returns an open link with a connection to the agent.
func (c *Cell) upLocked(ctx context.Context, cfg config.Config, state State, o UpOptions) (*link, error) {
	name, p, err := c.provider(cfg, state)
	if err != nil {
		return nil, err
	}
	if cfg.Guest.OS == "nixos" {
		return nil, usageError("guest.os = \"nixos\" needs the Nix images, which this rootcell does not build; set guest.os = \"debian\" in %q", c.path(configFile))
	}
	set, err := c.Images.Ensure(ctx, guestArch(cfg, c.GOARCH))
	if err != nil {
		return nil, err
	}
	spec, err := c.spec(cfg, state, set)
	if err != nil {
		return nil, err
	}
	// Invariant: who owns v/, and what images are in use there, is on disk
	// before anything is made in it, so that `remove` after a crash asks the
	// right provider and `image prune` spares the images (TestKilledUpIsContinued).
	images := used(state.Images, set)
	if state.Provider != name || !slices.Equal(state.Images, images) {
		if err := c.update(func(s *State) { s.Provider, s.Images = name, images }); err != nil {
			return nil, err
		}
	}
	if err := p.Apply(ctx, spec, func(s provider.Step) { c.Report(s.Text) }); err != nil {
		return nil, fmt.Errorf("starting the machines of instance %q: %w", c.Name, err)
	}
	applied, err := digestSpec(spec)
	if err != nil {
		return nil, err
	}
	configured := configuredDigest(cfg)
	if state.Applied != applied || state.Configured != configured {
		if err := c.update(func(s *State) { s.Applied, s.Configured = applied, configured }); err != nil {
			return nil, err
		}
	}
	c.Report("waiting for the firewall")
	l, err := c.connect(ctx, p, state, cfg.Guest.User)
	if err != nil {
		return nil, err
	}
	if err := l.settle(ctx, cfg, state, o); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// used adds the files of set to those in use: an agent keeps booting what its
// disk was made from until it is reset.
func used(files []string, set ImageSet) []string {
	all := slices.Concat(files, []string{set.Kernel, set.FirewallInitrd, set.AgentInitrd, set.AgentRoot})
	slices.Sort(all)
	return slices.Compact(all)
}

// settle brings a cell that runs to the state of its files.
func (l *link) settle(ctx context.Context, cfg config.Config, state State, o UpOptions) error {
	current, err := l.current(ctx)
	if err != nil {
		return err
	}
	if !current {
		if err := l.syncLocked(ctx); err != nil {
			return err
		}
	}
	l.cell.Report("waiting for the agent")
	if err := l.enter(ctx); err != nil {
		return err
	}
	return l.provision(ctx, cfg, state, o.Provision)
}

// running says whether the machines can be entered as they are: both run, and
// the agent was provisioned completely.
func (c *Cell) running(ctx context.Context, p provider.Provider, s State) (bool, error) {
	if s.Provisioned == "" {
		return false, nil
	}
	status, err := p.Status(ctx, c.id())
	if errors.Is(err, provider.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking at the machines of instance %q: %w", c.Name, err)
	}
	return status.Agent.State == provider.StateRunning && status.Firewall.State == provider.StateRunning, nil
}

// configuredDigest identifies a configuration, to notice that it changed since
// the machines were brought to it.
func configuredDigest(cfg config.Config) string {
	var values []any
	for _, s := range cfg.Settings() {
		values = append(values, s.Key, s.Value)
	}
	text, err := json.Marshal(values)
	if err != nil {
		return ""
	}
	return digest(text)
}
