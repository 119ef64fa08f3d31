package cell

import (
	"context"
	"fmt"

	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/sshx"
)

// Forward makes ports of a running agent reachable on 127.0.0.1 of the host
// until ctx ends, which is no error. Ready is called once with the ports of the
// host, in the order of forwards, when all of them listen.
func (c *Cell) Forward(ctx context.Context, forwards []sshx.PortForward, ready func(local []int)) error {
	l, err := c.attach(ctx, provider.RoleFirewall, provider.RoleAgent)
	if err != nil {
		return err
	}
	defer l.Close()
	var local []int
	for _, f := range forwards {
		forwarding, err := l.agent.Forward(ctx, f, func(err error) { c.Warn(err.Error()) })
		if err != nil {
			return err
		}
		defer forwarding.Close()
		local = append(local, forwarding.Port)
	}
	ready(local)
	select {
	case <-ctx.Done():
		return nil
	case <-l.agent.Done():
		return &Error{Code: ExitTransport, Err: fmt.Errorf("the connection to the agent of instance %q ended: %w", c.Name, l.agent.Err())}
	}
}
