package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// session is one changing call on a cell, which holds the cell's lock.
type session struct {
	p        *Provider
	id       provider.CellID
	dir      dir
	progress provider.Progress

	mu sync.Mutex // protects progress calls and st between machines that start together
	st state
}

// open locks a cell and reads its state. With create it makes the cell when
// there is none; without, it wraps provider.ErrNotFound.
func (p *Provider) open(ctx context.Context, id provider.CellID, create bool, progress provider.Progress) (*session, func(), error) {
	if err := errors.Join(ctx.Err(), id.Validate()); err != nil {
		return nil, nil, err
	}
	d := dirOf(id)
	if create {
		if err := d.makePrivate(); err != nil {
			return nil, nil, err
		}
	} else if _, err := load(id); err != nil {
		return nil, nil, err
	}
	release, err := d.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	st, err := load(id)
	if create && errors.Is(err, provider.ErrNotFound) {
		st = newState()
		err = st.save(d)
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return &session{p: p, id: id, dir: d, progress: progress, st: st}, release, nil
}

func (s *session) step(role provider.Role, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.p.log.Debug("applying a cell", "instance", s.id.Instance, "role", string(role), "step", text)
	if s.progress == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress(provider.Step{Role: role, Text: text})
}

func (s *session) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.save(s.dir)
}

// Plan implements provider.Provider.
func (p *Provider) Plan(ctx context.Context, spec provider.Spec) (provider.Plan, error) {
	if err := errors.Join(ctx.Err(), spec.Validate()); err != nil {
		return provider.Plan{}, err
	}
	binary, err := p.binary(guestArch(spec.Arch))
	if err != nil {
		return provider.Plan{}, err
	}
	st, err := load(spec.ID)
	if err != nil && !errors.Is(err, provider.ErrNotFound) {
		return provider.Plan{}, err
	}
	// Without a probe: what was found last time, or what is asked for.
	accel, _, known := p.rememberedAccel(spec, binary)
	if !known {
		accel = st.Accel
	}
	var plan provider.Plan
	for _, role := range roles {
		w, err := decide(ctx, dirOf(spec.ID), &st, spec, role, accel, binary)
		if err != nil {
			return provider.Plan{}, err
		}
		if w.verb != keep {
			plan.Steps = append(plan.Steps, w.step())
		}
	}
	return plan, nil
}

// Apply implements provider.Provider.
func (p *Provider) Apply(ctx context.Context, spec provider.Spec, progress provider.Progress) error {
	if err := spec.Validate(); err != nil {
		return err
	}
	if err := checkFiles(spec); err != nil {
		return err
	}
	binary, err := p.binary(guestArch(spec.Arch))
	if err != nil {
		return err
	}
	s, release, err := p.open(ctx, spec.ID, true, progress)
	if err != nil {
		return err
	}
	defer release()
	if err := s.dir.trimConsole(); err != nil {
		p.log.Debug("shortening the firewall's console", "error", err)
	}
	v, err := p.chooseAccel(ctx, spec, binary, s)
	if err != nil {
		return err
	}
	started, err := s.converge(ctx, spec, v, binary)
	switch {
	case ctx.Err() != nil, v.accel == "tcg", v.proven:
		return err
	case err != nil:
		return s.fallBack(ctx, spec, binary, err)
	case started:
		return s.guardAccel(ctx, spec, v, binary)
	}
	return nil
}

// converge brings both machines to spec, side by side, and reports whether one
// was started.
func (s *session) converge(ctx context.Context, spec provider.Spec, v verdict, binary string) (started bool, err error) {
	s.st.Accel, s.st.AccelReason = v.accel, v.reason
	want := sourceOf(spec.Agent)
	s.st.Agent.Wants = &want
	var todo []work
	for _, role := range roles {
		w, err := decide(ctx, s.dir, &s.st, spec, role, v.accel, binary)
		if err != nil {
			return false, err
		}
		todo = append(todo, w)
	}
	// Both disks first: from here on the state of one machine is changed by
	// one goroutine, and saved under the session's mutex.
	group, gctx := errgroup.WithContext(ctx)
	for _, w := range todo {
		started = started || w.verb == start || w.verb == restart
		group.Go(func() error { return s.do(gctx, w, spec) })
	}
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			return started, ctx.Err()
		}
		return started, err
	}
	return started, s.save()
}

// The verbs of a work.
const (
	keep    = "keep"    // it runs as specified
	resume  = "resume"  // it runs as specified and is paused
	start   = "start"   // it does not run
	restart = "restart" // it runs and is not as specified
)

// work is what Apply does about one machine.
type work struct {
	role   provider.Role
	verb   string
	reason string // of a restart or resume
	launch launch
}

func (w work) step() provider.Step {
	l := w.launch
	how := fmt.Sprintf("%d CPUs, %s of memory, %s", l.CPUs, bytesText(l.MemoryBytes), accelText(l.Accel))
	text := fmt.Sprintf("starting the %s (%s)", w.role, how)
	switch w.verb {
	case restart:
		text = fmt.Sprintf("starting the %s again: %s (%s)", w.role, w.reason, how)
	case resume:
		text = fmt.Sprintf("resuming the %s: %s", w.role, w.reason)
	}
	return provider.Step{Role: w.role, Text: text}
}

// decide compares what a machine is with what spec says. It changes nothing.
func decide(ctx context.Context, d dir, st *state, spec provider.Spec, role provider.Role, accel, binary string) (work, error) {
	m := st.machine(role)
	w := work{role: role, launch: launchOf(spec, role, m, accel, binary)}
	pid, err := d.holder(role)
	if err != nil {
		return work{}, err
	}
	if pid == 0 {
		w.verb = start
		return w, nil
	}
	run, err := runState(ctx, d, role, 10*time.Second)
	switch {
	case ctx.Err() != nil:
		return work{}, ctx.Err()
	case err != nil:
		w.verb, w.reason = restart, "its process does not answer"
	case m.Launch == nil:
		w.verb, w.reason = restart, "how it was started is not known"
	case *m.Launch != w.launch:
		w.verb, w.reason = restart, difference(*m.Launch, w.launch)
	case run == "running":
		w.verb = keep
	case run == "paused" || run == "io-error":
		w.verb, w.reason = resume, pausedText(run)
	default:
		w.verb, w.reason = restart, fmt.Sprintf("its state is %q", run)
	}
	return w, nil
}

// launchOf is what a machine is to be started with.
func launchOf(spec provider.Spec, role provider.Role, m *machine, accel, binary string) launch {
	want := spec.Machine(role)
	l := launch{
		Name: want.Name, Arch: guestArch(spec.Arch), Accel: accel, Binary: binary,
		CPUs: want.CPUs, MemoryBytes: want.MemoryBytes, DiskBytes: want.DiskBytes,
		Kernel: want.Kernel, Initrd: want.Initrd, Cmdline: want.Cmdline, ConfigHash: want.EffectiveConfigHash(),
	}
	switch {
	case m.Disk == nil:
	case role == provider.RoleFirewall:
		l.DiskBytes = m.Disk.Bytes
	default:
		l.DiskBytes = max(want.DiskBytes, m.Disk.Bytes)
		if m.Disk.From != sourceOf(want) && m.Launch != nil {
			// The disk's own kernel and initrd were kept with it.
			l.Kernel, l.Initrd = m.Launch.Kernel, m.Launch.Initrd
		}
	}
	return l
}

// difference names the first thing that a restart is for.
func difference(is, want launch) string {
	switch {
	case is.Accel != want.Accel:
		return "its acceleration changed"
	case is.CPUs != want.CPUs:
		return fmt.Sprintf("it had %d CPUs", is.CPUs)
	case is.MemoryBytes != want.MemoryBytes:
		return "it had " + bytesText(is.MemoryBytes) + " of memory"
	case is.DiskBytes != want.DiskBytes:
		return "its disk had " + bytesText(is.DiskBytes)
	case is.Kernel != want.Kernel || is.Initrd != want.Initrd || is.Cmdline != want.Cmdline:
		return "its image changed"
	case is.ConfigHash != want.ConfigHash:
		return "its configuration changed"
	case is.Binary != want.Binary:
		return "it ran on " + is.Binary
	}
	return "its description changed"
}

// do brings one machine to what was decided.
func (s *session) do(ctx context.Context, w work, spec provider.Spec) error {
	want := spec.Machine(w.role)
	if w.verb == restart {
		s.step(w.role, "%s", w.step().Text)
		if err := s.end(ctx, w.role, s.p.grace(w.role)); err != nil {
			return err
		}
	}
	// The guest reads it at its next start, whether that is now or later.
	if err := s.dir.writePrivate(file(w.role, "json"), want.Config); err != nil {
		return err
	}
	switch w.verb {
	case keep:
		return nil
	case resume:
		s.step(w.role, "%s", w.step().Text)
		return ask(ctx, s.dir, w.role, 10*time.Second, "cont", nil, nil)
	case start:
		s.step(w.role, "%s", w.step().Text)
	}
	ensure := s.ensureFirewallDisk
	if w.role == provider.RoleAgent {
		ensure = s.ensureAgentDisk
	}
	if err := ensure(ctx, want); err != nil {
		return err
	}
	l := launchOf(spec, w.role, s.st.machine(w.role), w.launch.Accel, w.launch.Binary)
	return s.launch(ctx, w.role, l)
}

// checkFiles reports a file of spec that cannot be used, before anything is
// stopped or made for it.
func checkFiles(spec provider.Spec) error {
	for _, role := range roles {
		m := spec.Machine(role)
		files := map[string]string{"kernel": m.Kernel}
		if m.Initrd != "" {
			files["initrd"] = m.Initrd
		}
		if role == provider.RoleAgent {
			files["image"] = m.Image
		}
		for what, path := range files {
			info, err := os.Stat(path)
			if err == nil && !info.Mode().IsRegular() {
				err = fmt.Errorf("%q is not a file", path)
			}
			if err != nil {
				return fmt.Errorf("looking at the %s's %s: %w; build the images with `rootcell image build`", role, what, err)
			}
		}
	}
	return nil
}
