package providertest

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

func changed(t *testing.T, s Subject) {
	apply(t, s.Provider, s.Spec)
	first := running(t, s.Provider, s.Spec.ID)

	s.Spec.Agent.MemoryBytes += 16 << 20
	apply(t, s.Provider, s.Spec)
	second := running(t, s.Provider, s.Spec.ID)
	if second.Agent.BootID == first.Agent.BootID {
		t.Error("an agent with other memory was not restarted")
	}
	if second.Firewall.BootID != first.Firewall.BootID {
		t.Error("the firewall was restarted for the agent's sake")
	}

	s.Spec.Firewall.Config = append([]byte(nil), "another config"...)
	apply(t, s.Provider, s.Spec)
	third := running(t, s.Provider, s.Spec.ID)
	if third.Firewall.BootID == second.Firewall.BootID {
		t.Error("a firewall with another config was not restarted")
	}
	if third.Agent.BootID != second.Agent.BootID {
		t.Error("the agent was restarted for the firewall's sake")
	}
	if steps := apply(t, s.Provider, s.Spec); len(steps) != 0 {
		t.Errorf("Apply of the same again reported %v", steps)
	}
}

func sameHash(t *testing.T, s Subject) {
	s.Spec.Firewall.ConfigHash = "one"
	apply(t, s.Provider, s.Spec)
	first := running(t, s.Provider, s.Spec.ID)
	s.Spec.Firewall.Config = append([]byte(nil), "a newer policy, pushed already"...)
	apply(t, s.Provider, s.Spec)
	if diff := cmp.Diff(first, running(t, s.Provider, s.Spec.ID)); diff != "" {
		t.Errorf("the status changed:\n%s", diff)
	}
	s.Spec.Firewall.ConfigHash = "two"
	apply(t, s.Provider, s.Spec)
	if running(t, s.Provider, s.Spec.ID).Firewall.BootID == first.Firewall.BootID {
		t.Error("another hash did not restart the firewall")
	}
}

func outdated(t *testing.T, s Subject) {
	apply(t, s.Provider, s.Spec)
	first := running(t, s.Provider, s.Spec.ID)
	if first.Agent.Outdated {
		t.Error("a fresh agent is outdated")
	}
	s.Spec.Agent.Image = s.OtherImage
	apply(t, s.Provider, s.Spec)
	second := running(t, s.Provider, s.Spec.ID)
	if !second.Agent.Outdated {
		t.Error("an agent of another image is not outdated")
	}
	if second.Agent.BootID != first.Agent.BootID {
		t.Error("the agent was restarted for an image that it does not take")
	}
	r, ok := s.Provider.(provider.Resetter)
	if !ok {
		return
	}
	if err := r.ResetAgent(t.Context(), s.Spec.ID); err != nil {
		t.Fatalf("ResetAgent: %v", err)
	}
	apply(t, s.Provider, s.Spec)
	if running(t, s.Provider, s.Spec.ID).Agent.Outdated {
		t.Error("an agent that was reset is outdated")
	}
}

func killed(t *testing.T, s Subject) {
	apply(t, s.Provider, s.Spec)
	first := running(t, s.Provider, s.Spec.ID)
	for _, role := range []provider.Role{provider.RoleAgent, provider.RoleFirewall} {
		s.Kill(t, role)
		m := status(t, s.Provider, s.Spec.ID).Machine(role)
		if m.State != provider.StateUnexpected || m.Detail == "" || m.BootID != "" {
			t.Errorf("the killed %s: %+v, want it unexpected, with a detail and no boot", role, m)
		}
	}
	s.Kill(t, provider.RoleAgent) // one that is dead stays dead
	apply(t, s.Provider, s.Spec)
	second := running(t, s.Provider, s.Spec.ID)
	if second.Agent.BootID == first.Agent.BootID || second.Firewall.BootID == first.Firewall.BootID {
		t.Errorf("a boot id was used again: %+v, then %+v", first, second)
	}

	s.Kill(t, provider.RoleAgent)
	apply(t, s.Provider, s.Spec)
	third := running(t, s.Provider, s.Spec.ID)
	if third.Firewall.BootID != second.Firewall.BootID {
		t.Error("healing the agent restarted the firewall")
	}
}

func stop(t *testing.T, s Subject) {
	apply(t, s.Provider, s.Spec)
	first := running(t, s.Provider, s.Spec.ID)
	s.Kill(t, provider.RoleFirewall) // half a cell stops as well as a whole one
	for range 2 {
		mustStop(t, s.Provider, s.Spec.ID)
		st := status(t, s.Provider, s.Spec.ID)
		if st.Agent.State != provider.StateStopped || st.Firewall.State != provider.StateStopped {
			t.Errorf("after Stop: %+v", st)
		}
		if st.Agent.BootID != "" || !st.Agent.Started.IsZero() {
			t.Errorf("the stopped agent has a boot: %+v", st.Agent)
		}
	}
	apply(t, s.Provider, s.Spec)
	if running(t, s.Provider, s.Spec.ID).Agent.BootID == first.Agent.BootID {
		t.Error("the agent's boot id did not change with a new start")
	}
}

func destroy(t *testing.T, s Subject) {
	empty := s.Snapshot(t)
	apply(t, s.Provider, s.Spec)
	for range 2 {
		if err := s.Provider.Destroy(t.Context(), s.Spec.ID); err != nil {
			t.Fatalf("Destroy: %v", err)
		}
		if _, err := s.Provider.Status(t.Context(), s.Spec.ID); !errors.Is(err, provider.ErrNotFound) {
			t.Errorf("Status after Destroy = %v, want ErrNotFound", err)
		}
		if diff := cmp.Diff(empty, s.Snapshot(t)); diff != "" {
			t.Errorf("Destroy left something:\n%s", diff)
		}
	}
	apply(t, s.Provider, s.Spec)
	running(t, s.Provider, s.Spec.ID)
}

func reset(t *testing.T, s Subject) {
	r, ok := s.Provider.(provider.Resetter)
	if !ok {
		t.Skip("the provider is no Resetter")
	}
	apply(t, s.Provider, s.Spec)
	first := running(t, s.Provider, s.Spec.ID)
	for range 2 {
		if err := r.ResetAgent(t.Context(), s.Spec.ID); err != nil {
			t.Fatalf("ResetAgent: %v", err)
		}
		st := status(t, s.Provider, s.Spec.ID)
		if st.Agent.State != provider.StateMissing {
			t.Errorf("the agent after ResetAgent: %+v, want it missing", st.Agent)
		}
		if diff := cmp.Diff(first.Firewall, st.Firewall); diff != "" {
			t.Errorf("ResetAgent touched the firewall:\n%s", diff)
		}
	}
	apply(t, s.Provider, s.Spec)
	if got := running(t, s.Provider, s.Spec.ID); got.Firewall.BootID != first.Firewall.BootID {
		t.Error("Apply after ResetAgent restarted the firewall")
	}
}

// cut runs Apply and cancels it at its n-th step. It reports whether there were
// that many.
func cut(t *testing.T, s Subject, n int) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	steps := 0
	err := s.Reopen().Apply(ctx, s.Spec, func(provider.Step) {
		if steps++; steps == n {
			cancel()
		}
	})
	switch {
	case steps < n:
		if err != nil {
			t.Errorf("an Apply that was not cut: %v", err)
		}
		return false
	case err != nil && !errors.Is(err, context.Canceled):
		t.Errorf("Apply cut at step %d = %v, want context.Canceled", n, err)
	}
	return true
}

func cutShort(t *testing.T, s Subject) {
	for n := 1; cut(t, s, n); n++ {
		if _, err := s.Provider.Status(t.Context(), s.Spec.ID); err != nil {
			t.Errorf("Status after an Apply cut at step %d: %v", n, err)
		}
		apply(t, s.Provider, s.Spec)
		running(t, s.Provider, s.Spec.ID)
		if steps := apply(t, s.Provider, s.Spec); len(steps) != 0 {
			t.Errorf("Apply after the one that continued reported %v", steps)
		}
		if err := s.Provider.Destroy(t.Context(), s.Spec.ID); err != nil {
			t.Fatalf("Destroy: %v", err)
		}
	}
}

func cutThenDestroy(t *testing.T, s Subject) {
	empty := s.Snapshot(t)
	for n := 1; cut(t, s, n); n++ {
		if err := s.Provider.Destroy(t.Context(), s.Spec.ID); err != nil {
			t.Fatalf("Destroy: %v", err)
		}
		if diff := cmp.Diff(empty, s.Snapshot(t)); diff != "" {
			t.Errorf("Destroy after an Apply cut at step %d left something:\n%s", n, diff)
		}
	}
}

func ended(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Provider.Apply(ctx, s.Spec, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply = %v, want context.Canceled", err)
	}
	if _, err := s.Provider.Status(t.Context(), s.Spec.ID); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("Status after it = %v, want ErrNotFound", err)
	}
	apply(t, s.Provider, s.Spec)
	first := running(t, s.Provider, s.Spec.ID)
	id := s.Spec.ID
	for name, call := range map[string]func() error{
		"Plan":         func() error { _, err := s.Provider.Plan(ctx, s.Spec); return err },
		"Status":       func() error { _, err := s.Provider.Status(ctx, id); return err },
		"DialFirewall": func() error { return dialError(ctx, s.Provider, id) },
		"Stop":         func() error { return s.Provider.Stop(ctx, id) },
		"Destroy":      func() error { return s.Provider.Destroy(ctx, id) },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled", name, err)
		}
	}
	if diff := cmp.Diff(first, running(t, s.Provider, id)); diff != "" {
		t.Errorf("the status changed:\n%s", diff)
	}
}

func litter(t *testing.T, s Subject) {
	if s.Litter == nil {
		t.Skip("the provider leaves nothing behind")
	}
	apply(t, s.Provider, s.Spec)
	mustStop(t, s.Provider, s.Spec.ID)
	s.Litter(t)
	st := status(t, s.Provider, s.Spec.ID)
	if st.Agent.State != provider.StateStopped || st.Firewall.State != provider.StateStopped {
		t.Errorf("among litter: %+v, want both stopped", st)
	}
	apply(t, s.Provider, s.Spec)
	running(t, s.Provider, s.Spec.ID)
	mustStop(t, s.Provider, s.Spec.ID)
	s.Litter(t)
	if err := s.Provider.Destroy(t.Context(), s.Spec.ID); err != nil {
		t.Errorf("Destroy: %v", err)
	}
}

func neighbours(t *testing.T, s Subject) {
	other := s.Spec
	other.ID.Instance = s.Spec.ID.Instance + "-two"
	other.ID.Dir = filepath.Join(filepath.Dir(s.Spec.ID.Dir), "v-two")
	t.Cleanup(func() {
		if err := s.Provider.Destroy(context.WithoutCancel(t.Context()), other.ID); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
	apply(t, s.Provider, s.Spec)
	first := running(t, s.Provider, s.Spec.ID)
	apply(t, s.Provider, other)
	second := running(t, s.Provider, other.ID)
	if first.Agent.BootID == second.Agent.BootID {
		t.Error("two cells share an agent")
	}
	if err := s.Provider.Destroy(t.Context(), other.ID); err != nil {
		t.Fatalf("Destroy: %v", err)
	}
	if diff := cmp.Diff(first, running(t, s.Provider, s.Spec.ID)); diff != "" {
		t.Errorf("destroying one cell changed the other:\n%s", diff)
	}
}
