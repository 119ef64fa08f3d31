package cell

import (
	"context"

	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/sshx"
)

// Copy copies files between the host and a running agent.
func (c *Cell) Copy(ctx context.Context, o sshx.CopyOptions) error {
	l, err := c.attach(ctx, provider.RoleFirewall, provider.RoleAgent)
	if err != nil {
		return err
	}
	defer l.Close()
	return l.agent.Copy(ctx, o)
}
