package cell

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/config"
	"github.com/rootcell-ai/rootcell/internal/provider"
)

// Host is what the use cases need of the machine they run on. It is not
// changed after it was made and may be used concurrently.
type Host struct {
	Root Root
	// Providers make the providers that this rootcell has, by the names of the
	// configuration.
	Providers map[string]func(config.Config) provider.Provider
	Images    Images

	// Environ is the environment as of os.Environ; Flags are configuration
	// values given on the command line, by dotted key.
	Environ []string
	// GOOS and GOARCH are the host's, as Go spells them.
	GOOS, GOARCH string

	// Version is rootcell's own, for the guests' records.
	Version string
	// Command is what the user typed, for whoever waits for a lock.
	Command string
	// NoWait makes commands fail where they would wait for a lock.
	NoWait bool

	// Report hears what a command is doing, one short line without a full stop
	// for each step. Tell hears what is worth knowing; Warn hears what went wrong
	// without stopping the command.
	// Texts may hold what a guest said: whoever prints them escapes them, as
	// for errors.
	Report func(text string)
	Tell   func(text string)
	Warn   func(text string)
	// Ask puts a yes-or-no question; without a terminal it answers false.
	Ask func(question string) bool

	Logger *slog.Logger
}

// Images provides guest images.
type Images interface {
	// Ensure returns the images of Debian guests for an architecture as Go
	// spells it, building what the cache does not hold.
	Ensure(ctx context.Context, arch string) (ImageSet, error)
}

// ImageSet is what machines are started from: absolute paths of files that are
// not changed any more.
type ImageSet struct {
	Kernel         string
	FirewallInitrd string
	AgentInitrd    string
	AgentRoot      string // read-only base of the agent's disk
}

// Cell is one instance, which need not exist. Every command makes its own.
type Cell struct {
	*Host
	Name string
	Dir  string // absolute; need not exist
}

// Cell returns the instance called name.
func (h *Host) Cell(name string) (*Cell, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return &Cell{Host: h, Name: name, Dir: h.Root.InstanceDir(name)}, nil
}

func (h *Host) getenv(key string) string {
	for _, kv := range slices.Backward(h.Environ) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == key {
			return v
		}
	}
	return ""
}

// id is how the provider knows the cell.
func (c *Cell) id() provider.CellID {
	return provider.CellID{Instance: c.Name, Dir: filepath.Join(c.Dir, "v")}
}

func (c *Cell) path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

// Hint is how to give the user's next command for this instance.
func (c *Cell) Hint(rest string) string {
	s := "rootcell"
	if c.Name != DefaultInstance {
		s += " -i " + c.Name
	}
	if rest != "" {
		s += " " + rest
	}
	return "`" + s + "`"
}

// provider is the provider of the instance: the one that made its machines, or
// the configured one while there are none.
func (c *Cell) provider(cfg config.Config, s State) (string, provider.Provider, error) {
	want := cfg.ResolvedProvider(c.GOOS)
	name := want
	if s.Provider != "" {
		name = s.Provider
	}
	make, ok := c.Providers[name]
	if !ok {
		return "", nil, usageError("provider %q is not part of this rootcell; set provider in %q to one of %s", name, c.path(configFile), strings.Join(c.providerNames(), ", "))
	}
	if name != want {
		return name, nil, fmt.Errorf("instance %q has machines of provider %q and is configured for %q; %w", c.Name, name, want, errProviderChanged)
	}
	return name, make(cfg), nil
}

func (h *Host) providerNames() []string {
	names := make([]string, 0, len(h.Providers))
	for name := range h.Providers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (c *Cell) lock(ctx context.Context) (*Lock, error) {
	return acquire(ctx, c.Dir, LockOptions{Command: c.Command, NoWait: c.NoWait, Waiting: func(h Holder) {
		c.Report(fmt.Sprintf("waiting for %s to finish with instance %q", h, c.Name))
	}})
}
