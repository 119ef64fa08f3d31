package cell

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// stateError turns the absence of a state into advice.
func (c *Cell) stateError(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.Exists() {
		return c.noMachines()
	}
	return c.missing()
}

// need is the provider of an instance whose machines of the given roles run;
// otherwise an error that says what to run.
func (c *Cell) need(ctx context.Context, roles ...provider.Role) (State, provider.Provider, error) {
	if !c.Exists() {
		return State{}, nil, c.missing()
	}
	state, p, err := c.owned()
	if err != nil {
		return State{}, nil, err
	}
	status, err := p.Status(ctx, c.id())
	if errors.Is(err, provider.ErrNotFound) {
		return State{}, nil, c.noMachines()
	}
	if err != nil {
		return State{}, nil, fmt.Errorf("looking at the machines of instance %q: %w", c.Name, err)
	}
	for _, role := range roles {
		if m := status.Machine(role); m.State != provider.StateRunning {
			return State{}, nil, fmt.Errorf("the %s of instance %q is %s; %s starts it", role, c.Name, describe(m), c.Hint("up"))
		}
	}
	return state, p, nil
}

func describe(m provider.MachineStatus) string {
	if m.Detail != "" {
		return string(m.State) + ": " + m.Detail
	}
	return string(m.State)
}

// attach is a link to an instance whose machines run; nothing is started.
func (c *Cell) attach(ctx context.Context, roles ...provider.Role) (*link, error) {
	state, p, err := c.need(ctx, roles...)
	if err != nil {
		return nil, err
	}
	// The login name is all that is needed of the configuration, and Config
	// has it even where something else is wrong.
	cfg, err := c.Config()
	if err != nil {
		c.Logger.Debug("reading the configuration", "error", err)
	}
	l, err := c.connect(ctx, p, state, cfg.Guest.User)
	if err != nil {
		return nil, err
	}
	for _, role := range roles {
		if role == provider.RoleAgent {
			if err := l.enter(ctx); err != nil {
				l.Close()
				return nil, err
			}
		}
	}
	return l, nil
}
