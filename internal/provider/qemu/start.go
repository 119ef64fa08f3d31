package qemu

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// startLimit bounds the time from starting QEMU to its answering, which takes
// tenths of a second on an idle host.
const startLimit = 30 * time.Second

// launch starts a machine that has no process and waits until its QEMU answers.
func (s *session) launch(ctx context.Context, role provider.Role, l launch) error {
	for attempt := 1; ; attempt++ {
		port, err := s.prepare(role, l)
		if err != nil {
			return err
		}
		err = s.startOnce(ctx, role, l, port)
		if err == nil || ctx.Err() != nil || attempt == 5 {
			return err
		}
		complaint := s.dir.complaint(role)
		switch {
		case role == provider.RoleFirewall && strings.Contains(complaint, "host forwarding rule"):
			// Between asking for a free port and QEMU taking it, another
			// program took it.
			s.p.log.Debug("the firewall's port was taken", "port", port)
			s.mu.Lock()
			s.st.Port = 0
			s.mu.Unlock()
		case strings.Contains(complaint, "lock pid file"):
			// A rootcell that was killed had started one, which had not
			// locked its pid file when this call looked.
			s.p.log.Debug("another process of the machine came up", "role", string(role))
			if err := s.dir.killNow(ctx, role); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// prepare removes what an earlier process of the machine left, and records the
// start that is about to be made. The pid file stays: whoever locks it is the
// machine, and a process that is just coming up must not lose it.
func (s *session) prepare(role provider.Role, l launch) (port int, err error) {
	err = s.dir.remove(file(role, "qmp"), file(role, "net"), file(role, "console"))
	if err != nil {
		return 0, err
	}
	if role == provider.RoleFirewall {
		if err := s.choosePort(); err != nil {
			return 0, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.st.machine(role)
	m.Wanted, m.Launch, m.HostBoot = true, &l, hostBoot()
	return s.st.Port, s.st.save(s.dir)
}

// choosePort keeps the port of the firewall's SSH server as it was, unless
// another program has it.
func (s *session) choosePort() error {
	s.mu.Lock()
	before := s.st.Port
	s.mu.Unlock()
	port, err := freePort(before)
	if err != nil {
		return err
	}
	if before != 0 && port != before {
		s.step(provider.RoleFirewall, "moving the firewall's SSH from port %d, which another program has, to %d", before, port)
	}
	s.mu.Lock()
	s.st.Port = port
	s.mu.Unlock()
	return nil
}

// freePort is a port of 127.0.0.1 that nobody listens on: wanted, if it is one.
func freePort(wanted int) (int, error) {
	if wanted != 0 {
		if l, err := net.Listen("tcp4", loopback(wanted)); err == nil {
			return wanted, l.Close()
		}
	}
	l, err := net.Listen("tcp4", loopback(0))
	if err != nil {
		return 0, fmt.Errorf("choosing a port of 127.0.0.1 for the firewall's SSH: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (s *session) startOnce(ctx context.Context, role provider.Role, l launch, port int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := s.st.machine(role)
	exited, err := s.dir.spawn(role, l.Binary, arguments(role, s.id.Instance, m.UUID, l, port))
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		run, err := runState(limit, s.dir, role, startLimit)
		if err == nil && run == "running" {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("starting the %s: QEMU ended at once: %s; `rootcell doctor` checks the host", role, s.dir.complaint(role))
		case <-limit.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("starting the %s: QEMU does not answer within %s: %v; run the command again", role, startLimit, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// runState asks QEMU what a machine does: `running`, `paused`, `io-error`,
// `internal-error`, `shutdown`, …
func runState(ctx context.Context, d dir, role provider.Role, limit time.Duration) (string, error) {
	var status struct {
		Status string `json:"status"`
	}
	err := ask(ctx, d, role, limit, "query-status", nil, &status)
	return status.Status, err
}

// pausedText says why a machine in run state io-error or paused is paused.
func pausedText(run string) string {
	if run == "io-error" {
		return "it was paused because its disk could not be written; is the host's disk full?"
	}
	return "it was paused"
}

// accelText is an accelerator for people.
func accelText(accel string) string {
	switch accel {
	case "tcg":
		return "software emulation"
	case "":
		return "acceleration to be found out"
	}
	return strings.ToUpper(accel)
}
