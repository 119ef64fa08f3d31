package cell

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/config"
)

// Init creates the instance's directory, configuration and allowlists, for the
// named provider, and starts nothing. Done again it changes nothing but a
// provider that differs, and keeps every comment.
func (c *Cell) Init(ctx context.Context, providerName string) error {
	if _, ok := c.Providers[providerName]; !ok {
		return usageError("provider %q is not part of this rootcell; choose one of %s", providerName, strings.Join(c.providerNames(), ", "))
	}
	lock, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	if state, err := c.State(); err == nil && state.Provider != "" && state.Provider != providerName {
		return fmt.Errorf("instance %q has machines of provider %q; run %s first", c.Name, state.Provider, c.Hint("remove"))
	}
	if err := c.seedConfig(); err != nil {
		return err
	}
	if err := c.setProvider(providerName); err != nil {
		return err
	}
	_, _, err = c.prepare(ctx)
	return err
}

// setProvider changes the provider in the instance's configuration, in place.
func (c *Cell) setProvider(name string) error {
	path := c.path(configFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	changed, err := config.Set(text, "provider", name)
	if err != nil {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("changing %q: %w", path, err)}
	}
	if bytes.Equal(changed, text) {
		return nil
	}
	return writeFile(path, changed, 0o600)
}
