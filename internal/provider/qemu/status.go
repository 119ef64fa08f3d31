package qemu

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// Status implements provider.Provider.
func (p *Provider) Status(ctx context.Context, id provider.CellID) (provider.Status, error) {
	if err := errors.Join(ctx.Err(), id.Validate()); err != nil {
		return provider.Status{}, err
	}
	st, err := load(id)
	if err != nil {
		return provider.Status{}, err
	}
	out := provider.Status{Accel: st.Accel, AccelReason: st.AccelReason}
	if st.Port != 0 {
		out.Endpoint = loopback(st.Port)
	}
	d := dirOf(id)
	if out.Firewall, err = machineStatus(ctx, d, provider.RoleFirewall, &st.Firewall); err != nil {
		return provider.Status{}, err
	}
	if out.Agent, err = machineStatus(ctx, d, provider.RoleAgent, &st.Agent); err != nil {
		return provider.Status{}, err
	}
	m := st.Agent
	out.Agent.Outdated = m.Disk != nil && m.Wants != nil && m.Disk.From != *m.Wants
	return out, nil
}

func machineStatus(ctx context.Context, d dir, role provider.Role, m *machine) (provider.MachineStatus, error) {
	pid, err := d.holder(role)
	if err != nil {
		return provider.MachineStatus{}, err
	}
	if pid == 0 {
		return absent(d, role, m), nil
	}
	var out provider.MachineStatus
	if out.BootID, out.Started, err = startOf(pid); err != nil {
		// It ended between the two questions.
		return absent(d, role, m), nil
	}
	run, err := runState(ctx, d, role, 3*time.Second)
	switch {
	case ctx.Err() != nil:
		return provider.MachineStatus{}, ctx.Err()
	case err != nil:
		out.State, out.Detail = provider.StateUnexpected, fmt.Sprintf("process %d does not answer; `rootcell up` starts the %s again", pid, role)
	case run == "running":
		out.State = provider.StateRunning
	case run == "paused" || run == "io-error":
		out.State, out.Detail = provider.StateUnexpected, pausedText(run)+"; `rootcell up` resumes it"
	default:
		out.State, out.Detail = provider.StateUnexpected, fmt.Sprintf("QEMU says %q; `rootcell up` starts the %s again", run, role)
	}
	return out, nil
}

// absent is the status of a machine that has no process.
func absent(d dir, role provider.Role, m *machine) provider.MachineStatus {
	switch {
	case !m.Wanted && m.Disk == nil:
		return provider.MachineStatus{State: provider.StateMissing}
	case !m.Wanted:
		return provider.MachineStatus{State: provider.StateStopped}
	case m.HostBoot != hostBoot():
		return provider.MachineStatus{State: provider.StateStopped, Detail: "the host was started again since"}
	}
	// QEMU removes its pid file when it ends by itself, which it does when the
	// guest shuts down, and leaves it behind when it is killed.
	killed := d.exists(file(role, "pid")) || strings.Contains(d.complaint(role), "terminating on signal")
	if role == provider.RoleAgent && !killed && d.complaint(role) == "" {
		return provider.MachineStatus{State: provider.StateStopped, Detail: "it shut itself down"}
	}
	detail := "it ended by itself"
	if killed {
		detail = "its process was killed"
	}
	if words := d.lastWords(role); words != "" {
		detail += " (" + words + ")"
	}
	return provider.MachineStatus{State: provider.StateUnexpected, Detail: detail + "; `rootcell up` starts it again"}
}
