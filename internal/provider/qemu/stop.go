package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// killLimit bounds the wait for a process that was killed.
const killLimit = 10 * time.Second

// Stop implements provider.Provider.
func (p *Provider) Stop(ctx context.Context, id provider.CellID) error {
	s, release, err := p.open(ctx, id, false, nil)
	if err != nil {
		return err
	}
	defer release()
	for _, role := range roles {
		s.st.machine(role).Wanted = false
	}
	if err := s.save(); err != nil {
		return err
	}
	var group errgroup.Group
	for _, role := range roles {
		group.Go(func() error { return s.end(ctx, role, p.grace(role)) })
	}
	return group.Wait()
}

// Destroy implements provider.Provider.
func (p *Provider) Destroy(ctx context.Context, id provider.CellID) error {
	if err := errors.Join(ctx.Err(), id.Validate()); err != nil {
		return err
	}
	d := dirOf(id)
	if _, err := os.Lstat(string(d)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	release, err := d.lock(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another Destroy was faster
	}
	if err != nil {
		return err
	}
	defer release()
	for _, role := range roles {
		if err := d.killNow(ctx, role); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(string(d)); err != nil {
		return fmt.Errorf("removing the machines of cell %q: %w", id.Instance, err)
	}
	return nil
}

// ResetAgent implements provider.Resetter.
func (p *Provider) ResetAgent(ctx context.Context, id provider.CellID) error {
	s, release, err := p.open(ctx, id, false, nil)
	if err != nil {
		return err
	}
	defer release()
	s.st.Agent.Wanted = false
	if err := s.save(); err != nil {
		return err
	}
	if err := s.dir.killNow(ctx, provider.RoleAgent); err != nil {
		return err
	}
	// The disk first: should this end here, the disk is made again from what the
	// next Spec says, whatever the state still tells of the old one.
	err = s.dir.remove(diskFile(provider.RoleAgent))
	if err != nil {
		return err
	}
	s.st.Agent.Disk, s.st.Agent.Launch = nil, nil
	if err := s.save(); err != nil {
		return err
	}
	return s.dir.remove(file(provider.RoleAgent, "base"), file(provider.RoleAgent, "kernel"), file(provider.RoleAgent, "initrd"), file(provider.RoleAgent, "console"))
}

// end shuts a machine down: it presses the power button and waits for grace,
// then makes QEMU quit, then kills it. When ctx ends, it does not wait.
func (s *session) end(ctx context.Context, role provider.Role, grace time.Duration) error {
	pid, err := s.dir.holder(role)
	if err != nil || pid == 0 {
		return err
	}
	s.p.log.Debug("shutting a machine down", "role", string(role), "pid", pid)
	if role == provider.RoleAgent {
		if err := s.dir.drainConsole(ctx); err != nil {
			s.p.log.Debug("reading the agent's console from QEMU", "error", err)
		}
	}
	if err := ask(ctx, s.dir, role, 5*time.Second, "system_powerdown", nil, nil); err != nil {
		s.p.log.Debug("pressing the power button", "role", string(role), "error", err)
	} else if gone, err := s.dir.awaitEnd(ctx, role, grace); gone || err != nil {
		return err
	}
	// Not the caller's context: it may have ended, and the machine must still end.
	ctx = context.WithoutCancel(ctx)
	if err := ask(ctx, s.dir, role, 2*time.Second, "quit", nil, nil); err == nil {
		if gone, err := s.dir.awaitEnd(ctx, role, 3*time.Second); gone || err != nil {
			return err
		}
	}
	return s.dir.killNow(ctx, role)
}

// killNow ends a machine's process whatever state it is in.
func (d dir) killNow(ctx context.Context, role provider.Role) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killLimit)
	defer cancel()
	return d.kill(ctx, role)
}
