package cell

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/provision"
	"github.com/rootcell-ai/rootcell/internal/sshx"
)

// PubKey is the agent's own SSH public key, as one line. The key is made in
// the background after the first start; PubKey waits for it.
func (c *Cell) PubKey(ctx context.Context) (string, error) {
	l, err := c.attach(ctx, provider.RoleFirewall, provider.RoleAgent)
	if err != nil {
		return "", err
	}
	defer l.Close()
	text, err := l.agent.Exchange(ctx, 16<<10, strings.NewReader(provision.WaitForKey), "sh", "-s")
	var exit *sshx.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("the agent of instance %q has no SSH key; %s makes one", c.Name, c.Hint("provision"))
	}
	if err != nil {
		return "", c.agentError(err)
	}
	// The agent may answer anything; only a public key is passed on.
	key, err := sshx.ParsePublicLine(strings.TrimSpace(string(text)))
	if err != nil {
		return "", fmt.Errorf("reading the agent's SSH key: %w; %s makes a new one where there is none", err, c.Hint("provision"))
	}
	return sshx.PublicLine(key, MachineName(provider.RoleAgent, c.Name)), nil
}
