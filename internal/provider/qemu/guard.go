package qemu

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// guardAccel watches the first start under an accelerator that only the probe has
// vouched for. When a guest gives no sign of life, the accelerator is given up
// for this boot of the host, and with accel = "auto" the machines are started
// again without it.
func (s *session) guardAccel(ctx context.Context, spec provider.Spec, v verdict, binary string) error {
	s.step("", "waiting for the first line of both consoles")
	silent, err := s.silent(ctx)
	if err != nil {
		return err
	}
	if silent == "" {
		if f, ok := s.p.recall(binary); ok {
			f.Proven = true
			s.p.remember(f)
		}
		return nil
	}
	return s.fallBack(ctx, spec, binary, fmt.Errorf("the %s gave no sign of life under %s", silent, strings.ToUpper(v.accel)))
}

// fallBack starts the machines without acceleration because of trouble with it,
// and when that works gives it up for this boot of the host.
func (s *session) fallBack(ctx context.Context, spec provider.Spec, binary string, trouble error) error {
	f, err := identify(binary)
	if err != nil {
		return err
	}
	if known, ok := s.p.recall(binary); ok {
		f = known
	}
	f.Trouble, f.Probed, f.Proven = trouble.Error(), true, false
	v, err := judge(spec, &f)
	if err != nil {
		return err
	}
	s.step("", "using %s: %s", accelText(v.accel), v.reason)
	for _, role := range roles {
		// They hang or are half started: there is nothing to shut down in order.
		if err := s.dir.killNow(ctx, role); err != nil {
			return err
		}
	}
	if _, err := s.converge(ctx, spec, v, binary); err != nil {
		return err
	}
	s.p.remember(f)
	return nil
}

// silent waits until both consoles hold something, and names a machine whose
// console stayed empty.
func (s *session) silent(ctx context.Context) (provider.Role, error) {
	limit, cancel := context.WithTimeout(ctx, s.p.guard)
	defer cancel()
	for _, role := range roles {
		for {
			if role == provider.RoleAgent {
				if err := s.dir.drainConsole(limit); err != nil {
					s.p.log.Debug("reading the agent's console from QEMU", "error", err)
				}
			}
			info, err := os.Stat(s.dir.path(file(role, "console")))
			if err == nil && info.Size() > 0 {
				break
			}
			if pause(limit, 100*time.Millisecond) != nil {
				return role, ctx.Err()
			}
		}
	}
	return "", nil
}
