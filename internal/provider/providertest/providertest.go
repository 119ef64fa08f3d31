// Package providertest is the contract of package provider as tests. Every
// provider runs it, and so does the fake.
package providertest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// Subject is one provider, with one cell of its own, under test.
type Subject struct {
	// Provider is what is tested.
	Provider provider.Provider

	// Reopen returns another value for the same machines, as a later command
	// would make it.
	Reopen func() provider.Provider

	// Spec is a valid description of a cell that does not exist yet.
	Spec provider.Spec

	// OtherImage is a second image for the agent.
	OtherImage string

	// Kill ends a machine without the provider's doing.
	Kill func(t *testing.T, role provider.Role)

	// Litter leaves behind what a crash of the host leaves of a stopped cell:
	// pid files, sockets, half-written files. Nil when there is nothing.
	Litter func(t *testing.T)

	// Snapshot describes everything the provider keeps for the cell that Plan,
	// being without side effects, must leave as it is.
	Snapshot func(t *testing.T) string

	// Answers tells that the firewall's SSH server answers in this set-up.
	Answers bool
}

// limit bounds each call: a provider that hangs fails instead of stopping the
// suite.
const limit = 2 * time.Minute

// Run holds a provider to the contract. factory makes a subject with a fresh cell
// for each test, and cleans up through t.
func Run(t *testing.T, factory func(t *testing.T) Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"a cell that was never applied is not found":       neverApplied,
		"a bad spec is refused before anything is made":    badSpec,
		"plan has no side effects and tells what is to do": plan,
		"applying twice starts nothing again":              applyTwice,
		"a later process sees the same cell":               reopen,
		"a changed machine is restarted and no other":      changed,
		"a config under the same hash restarts nothing":    sameHash,
		"an agent's disk outlives a new image until reset": outdated,
		"a killed machine is noticed and healed":           killed,
		"stop is idempotent and apply starts again":        stop,
		"destroy is idempotent and apply starts afresh":    destroy,
		"reset drops the agent alone":                      reset,
		"an apply cut short is continued by the next":      cutShort,
		"a destroy after a cut apply leaves nothing":       cutThenDestroy,
		"an ended context is answered with its error":      ended,
		"status may be asked at any time":                  concurrentStatus,
		"two applies at once corrupt nothing":              concurrentApply,
		"the firewall is dialed only while it runs":        dial,
		"what a crash left behind is no obstacle":          litter,
		"cells do not see each other":                      neighbours,
	} {
		t.Run(name, func(t *testing.T) { test(t, factory(t)) })
	}
}

func apply(t *testing.T, p provider.Provider, spec provider.Spec) []provider.Step {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var steps []provider.Step
	if err := p.Apply(ctx, spec, func(s provider.Step) { steps = append(steps, s) }); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	return steps
}

func status(t *testing.T, p provider.Provider, id provider.CellID) provider.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	st, err := p.Status(ctx, id)
	if err != nil {
		t.Fatalf("Status: %v", err)
	}
	return st
}

// running fails unless both machines run, and returns their status.
func running(t *testing.T, p provider.Provider, id provider.CellID) provider.Status {
	t.Helper()
	st := status(t, p, id)
	for _, role := range []provider.Role{provider.RoleFirewall, provider.RoleAgent} {
		m := st.Machine(role)
		if m.State != provider.StateRunning || m.BootID == "" || m.Started.IsZero() {
			t.Fatalf("the %s: %+v, want it running", role, m)
		}
	}
	return st
}

func mustStop(t *testing.T, p provider.Provider, id provider.CellID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := p.Stop(ctx, id); err != nil {
		t.Fatalf("Stop: %v", err)
	}
}

func neverApplied(t *testing.T, s Subject) {
	ctx := t.Context()
	if _, err := s.Provider.Status(ctx, s.Spec.ID); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("Status = %v, want ErrNotFound", err)
	}
	if conn, err := s.Provider.DialFirewall(ctx, s.Spec.ID); !errors.Is(err, provider.ErrNotFound) {
		if err == nil {
			conn.Close()
		}
		t.Errorf("DialFirewall = %v, want ErrNotFound", err)
	}
	if err := s.Provider.Stop(ctx, s.Spec.ID); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("Stop = %v, want ErrNotFound", err)
	}
	if err := s.Provider.Destroy(ctx, s.Spec.ID); err != nil {
		t.Errorf("Destroy = %v, want nil", err)
	}
	if r, ok := s.Provider.(provider.Resetter); ok {
		if err := r.ResetAgent(ctx, s.Spec.ID); !errors.Is(err, provider.ErrNotFound) {
			t.Errorf("ResetAgent = %v, want ErrNotFound", err)
		}
	}
	if c, ok := s.Provider.(provider.ConsoleReader); ok {
		if _, err := c.Console(ctx, s.Spec.ID, provider.RoleAgent); !errors.Is(err, provider.ErrNotFound) {
			t.Errorf("Console = %v, want ErrNotFound", err)
		}
	}
}

func badSpec(t *testing.T, s Subject) {
	bad := s.Spec
	bad.Agent.CPUs = 0
	if err := s.Provider.Apply(t.Context(), bad, nil); err == nil {
		t.Error("Apply took a machine without CPUs")
	}
	if _, err := s.Provider.Plan(t.Context(), bad); err == nil {
		t.Error("Plan took a machine without CPUs")
	}
	if _, err := s.Provider.Status(t.Context(), s.Spec.ID); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("Status after a refused Apply = %v, want ErrNotFound", err)
	}
}

func plan(t *testing.T, s Subject) {
	ask := func(want ...provider.Role) {
		t.Helper()
		before := s.Snapshot(t)
		p, err := s.Provider.Plan(t.Context(), s.Spec)
		if err != nil {
			t.Fatalf("Plan: %v", err)
		}
		if diff := cmp.Diff(before, s.Snapshot(t)); diff != "" {
			t.Errorf("Plan changed what is kept:\n%s", diff)
		}
		var got []provider.Role
		for _, step := range p.Steps {
			got = append(got, step.Role)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Plan is about other machines than expected:\n%s", diff)
		}
	}
	ask(provider.RoleFirewall, provider.RoleAgent)
	if _, err := s.Provider.Status(t.Context(), s.Spec.ID); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("Status after Plan = %v, want ErrNotFound", err)
	}
	apply(t, s.Provider, s.Spec)
	ask()
	s.Spec.Agent.CPUs++
	ask(provider.RoleAgent)
	s.Kill(t, provider.RoleFirewall)
	ask(provider.RoleFirewall, provider.RoleAgent)
}

func applyTwice(t *testing.T, s Subject) {
	if steps := apply(t, s.Provider, s.Spec); len(steps) == 0 {
		t.Error("the first Apply reported no steps")
	}
	first := running(t, s.Provider, s.Spec.ID)
	if steps := apply(t, s.Provider, s.Spec); len(steps) != 0 {
		t.Errorf("the second Apply reported %v", steps)
	}
	if diff := cmp.Diff(first, running(t, s.Provider, s.Spec.ID)); diff != "" {
		t.Errorf("the second Apply changed the status:\n%s", diff)
	}
	if err := s.Provider.Apply(t.Context(), s.Spec, nil); err != nil {
		t.Errorf("Apply without progress: %v", err)
	}
}

func reopen(t *testing.T, s Subject) {
	apply(t, s.Provider, s.Spec)
	first := running(t, s.Provider, s.Spec.ID)
	later := s.Reopen()
	if diff := cmp.Diff(first, running(t, later, s.Spec.ID)); diff != "" {
		t.Errorf("a later process sees another status:\n%s", diff)
	}
	if steps := apply(t, later, s.Spec); len(steps) != 0 {
		t.Errorf("a later process's Apply reported %v", steps)
	}
	mustStop(t, later, s.Spec.ID)
	if got := status(t, s.Provider, s.Spec.ID).Agent.State; got != provider.StateStopped {
		t.Errorf("the agent, stopped by a later process, is %q", got)
	}
}

func concurrentStatus(t *testing.T, s Subject) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_, err := s.Provider.Status(t.Context(), s.Spec.ID)
				if err != nil && !errors.Is(err, provider.ErrNotFound) {
					t.Errorf("Status: %v", err)
					return
				}
				_, err = s.Provider.Plan(t.Context(), s.Spec)
				if err != nil {
					t.Errorf("Plan: %v", err)
					return
				}
			}
		})
	}
	apply(t, s.Provider, s.Spec)
	mustStop(t, s.Provider, s.Spec.ID)
	apply(t, s.Provider, s.Spec)
	running(t, s.Provider, s.Spec.ID)
	if err := s.Provider.Destroy(t.Context(), s.Spec.ID); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	close(done)
	wg.Wait()
}

func concurrentApply(t *testing.T, s Subject) {
	var wg sync.WaitGroup
	for _, p := range []provider.Provider{s.Provider, s.Reopen(), s.Reopen()} {
		wg.Go(func() {
			if err := p.Apply(t.Context(), s.Spec, nil); err != nil {
				t.Errorf("Apply: %v", err)
			}
		})
	}
	wg.Wait()
	first := running(t, s.Provider, s.Spec.ID)
	if steps := apply(t, s.Provider, s.Spec); len(steps) != 0 {
		t.Errorf("Apply after that reported %v", steps)
	}
	if diff := cmp.Diff(first, running(t, s.Provider, s.Spec.ID)); diff != "" {
		t.Errorf("Apply after that changed the status:\n%s", diff)
	}
}

func dial(t *testing.T, s Subject) {
	apply(t, s.Provider, s.Spec)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if s.Answers {
		conn, err := s.Provider.DialFirewall(ctx, s.Spec.ID)
		if err != nil {
			t.Fatalf("DialFirewall: %v", err)
		}
		defer conn.Close()
		banner := make([]byte, 4)
		if _, err := io.ReadFull(conn, banner); err != nil || string(banner) != "SSH-" {
			t.Errorf("the stream begins with %q (%v), want an SSH version", banner, err)
		}
	} else {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := s.Provider.DialFirewall(short, s.Spec.ID); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("DialFirewall of a firewall that does not answer = %v, want it to wait for ctx", err)
		}
	}
	var waiting sync.WaitGroup
	if !s.Answers {
		// One that waits is told when the firewall ends.
		waiting.Go(func() {
			if err := dialError(ctx, s.Provider, s.Spec.ID); !errors.Is(err, provider.ErrNotRunning) {
				t.Errorf("DialFirewall of a firewall that ends meanwhile = %v, want ErrNotRunning", err)
			}
		})
	}
	s.Kill(t, provider.RoleFirewall)
	waiting.Wait()
	if err := dialError(ctx, s.Provider, s.Spec.ID); !errors.Is(err, provider.ErrNotRunning) {
		t.Errorf("DialFirewall of a killed firewall = %v, want ErrNotRunning", err)
	}
	mustStop(t, s.Provider, s.Spec.ID)
	if err := dialError(ctx, s.Provider, s.Spec.ID); !errors.Is(err, provider.ErrNotRunning) {
		t.Errorf("DialFirewall of a stopped cell = %v, want ErrNotRunning", err)
	}
}

func dialError(ctx context.Context, p provider.Provider, id provider.CellID) error {
	var conn net.Conn
	conn, err := p.DialFirewall(ctx, id)
	if err == nil {
		conn.Close()
	}
	return err
}
