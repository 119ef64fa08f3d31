package cell

import (
	"context"
	"errors"
	"fmt"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// Stop stops both machines. It is nil for an instance whose machines are
// stopped already, and an error for one that has none.
func (c *Cell) Stop(ctx context.Context) error {
	lock, err := c.lockExisting(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	_, p, err := c.owned()
	if err != nil {
		return err
	}
	c.Report("stopping the machines")
	err = p.Stop(ctx, c.id())
	if errors.Is(err, provider.ErrNotFound) {
		return c.noMachines()
	}
	if err != nil {
		err = fmt.Errorf("stopping the machines of instance %q: %w", c.Name, err)
	}
	c.record("stop", err)
	return err
}

// Remove deletes the machines and what the provider keeps for them.
// Configuration, allowlists, CA, keys and subnet stay.
func (c *Cell) Remove(ctx context.Context) error {
	lock, err := c.lockExisting(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	_, p, err := c.owned()
	if err != nil {
		return err
	}
	c.Report("deleting the machines")
	if err := p.Destroy(ctx, c.id()); err != nil {
		err = fmt.Errorf("deleting the machines of instance %q: %w; run %s again", c.Name, err, c.Hint("remove"))
		c.record("remove", err)
		return err
	}
	return c.update(func(s *State) {
		s.Provider, s.Applied, s.Configured, s.Provisioned = "", "", "", ""
		s.Images, s.LastError = nil, nil
	})
}

// Reset throws the agent's disk away and brings the cell up with a fresh one.
func (c *Cell) Reset(ctx context.Context) error {
	lock, err := c.lockExisting(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	_, p, err := c.owned()
	if err != nil {
		return err
	}
	resetter, ok := p.(provider.Resetter)
	if !ok {
		return fmt.Errorf("the provider of instance %q cannot reset the agent alone; run %s and then %s", c.Name, c.Hint("remove"), c.Hint("up"))
	}
	// Invariant: the agent counts as not provisioned before its disk goes, so
	// that a kill in between never leaves a bare agent that looks ready
	// (TestKilledResetProvisionsAgain).
	if err := c.update(func(s *State) { s.Provisioned = "" }); err != nil {
		return err
	}
	c.Report("throwing the agent's disk away")
	err = resetter.ResetAgent(ctx, c.id())
	if errors.Is(err, provider.ErrNotFound) {
		return c.noMachines()
	}
	if err != nil {
		err = fmt.Errorf("resetting the agent of instance %q: %w", c.Name, err)
	} else if err = c.update(func(s *State) { s.Images = nil }); err == nil {
		err = c.upAgain(ctx)
	}
	c.record("reset", err)
	return err
}

func (c *Cell) upAgain(ctx context.Context) error {
	cfg, state, err := c.prepare(ctx)
	if err != nil {
		return err
	}
	l, err := c.upLocked(ctx, cfg, state, UpOptions{})
	if err != nil {
		return err
	}
	l.Close()
	return nil
}

// owned is the provider that has the instance's machines. A configuration
// with problems, or one that names another provider by now, does not keep
// anybody from stopping or removing what runs.
func (c *Cell) owned() (State, provider.Provider, error) {
	state, err := c.State()
	if err != nil {
		return State{}, nil, c.stateError(err)
	}
	if state.Provider == "" {
		return State{}, nil, c.noMachines()
	}
	p, err := c.maker(state)
	return state, p, err
}

// maker is the provider that made the machines.
func (c *Cell) maker(state State) (provider.Provider, error) {
	make, ok := c.Providers[state.Provider]
	if !ok {
		return nil, fmt.Errorf("the machines of instance %q belong to provider %q, which is not part of this rootcell; use the rootcell that made them", c.Name, state.Provider)
	}
	cfg, err := c.Config()
	if err != nil {
		c.Logger.Debug("reading the configuration", "error", err)
	}
	return make(cfg), nil
}

func (c *Cell) noMachines() error {
	return fmt.Errorf("instance %q has no machines; %s creates and starts them", c.Name, c.Hint("up"))
}
