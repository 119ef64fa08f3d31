package cell

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/rootcell-ai/rootcell/internal/config"
)

var errProviderChanged = errors.New("run `rootcell remove` first, or set provider back")

// Config reads the configuration of the instance. Problems of the
// configuration are an error with ExitUsage; the Config is usable for what
// needs no setting all the same.
func (c *Cell) Config() (config.Config, error) {
	cfg, err := config.Load(config.Sources{Project: c.Root.ProjectConfig, Instance: c.path(configFile), Environ: c.Environ})
	if err != nil {
		return cfg, &Error{Code: ExitUsage, Err: err}
	}
	return cfg, nil
}

// Exists says whether the instance has a directory with something in it.
func (c *Cell) Exists() bool { return c.Root.Exists(c.Name) }

// lockExisting takes the lock of an instance that must exist.
func (c *Cell) lockExisting(ctx context.Context) (*Lock, error) {
	if !c.Exists() {
		return nil, c.missing()
	}
	return c.lock(ctx)
}

func (c *Cell) missing() error {
	return fmt.Errorf("instance %q does not exist; %s creates and starts it, `rootcell list` shows what there is", c.Name, c.Hint("up"))
}

// open makes the instance's directory and takes its lock.
func (c *Cell) open(ctx context.Context) (*Lock, error) {
	for _, dir := range []string{c.Root.Dir, c.Dir} {
		if err := makeDir(dir); err != nil {
			return nil, err
		}
	}
	return c.lock(ctx)
}

// prepare brings the files of the instance to the state in which its machines
// can be started. The caller holds the lock.
func (c *Cell) prepare(ctx context.Context) (config.Config, State, error) {
	for _, dir := range []string{"proxy", "pki", "ssh", "v"} {
		if err := makeDir(c.path(dir)); err != nil {
			return config.Config{}, State{}, err
		}
	}
	c.removeUnfinished()
	if err := c.seedConfig(); err != nil {
		return config.Config{}, State{}, err
	}
	cfg, err := c.Config()
	if err != nil {
		return config.Config{}, State{}, err
	}
	state, err := c.allocated(ctx, cfg)
	if err != nil {
		return config.Config{}, State{}, err
	}
	if err := c.seedLists(); err != nil {
		return config.Config{}, State{}, err
	}
	if err := c.ensureCA(); err != nil {
		return config.Config{}, State{}, err
	}
	if _, err := c.ensureKeys(); err != nil {
		return config.Config{}, State{}, err
	}
	return cfg, state, nil
}

// removeUnfinished deletes what killed commands left of files that they were
// replacing. The lock is held, so nobody is writing them.
func (c *Cell) removeUnfinished() {
	for _, dir := range []string{".", "proxy", "pki", "ssh"} {
		left, _ := filepath.Glob(c.path(dir, ".*"+unfinished+"*"))
		for _, path := range left {
			c.Logger.Debug("removing an unfinished file", "path", path, "error", os.Remove(path))
		}
	}
}

// seedConfig writes a configuration that sets nothing where there is none.
func (c *Cell) seedConfig() error {
	_, err := createFile(c.path(configFile), config.Seed(), 0o600)
	return err
}

// allocated is the state of the instance; it is made when there is none.
func (c *Cell) allocated(ctx context.Context, cfg config.Config) (State, error) {
	state, err := readState(c.Dir)
	if err == nil {
		states, err := c.Root.states()
		if err != nil {
			return State{}, err
		}
		if err := checkConflict(c.Name, states); err != nil {
			return State{}, err
		}
		c.warnMoved(cfg, state)
		return state, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return State{}, err
	}
	// Invariant: subnets are given out by one process at a time, and the
	// state that takes one is on disk before the lock is released
	// (TestSubnetsAreGivenOutOnce).
	lock, err := acquire(ctx, c.Root.Dir, LockOptions{Command: c.Command, NoWait: c.NoWait})
	if err != nil {
		return State{}, err
	}
	defer lock.Release()
	states, err := c.Root.states()
	if err != nil {
		return State{}, err
	}
	n := cfg.Network
	a, err := allocate(n.PoolFirst, n.PoolLast, n.FirewallIP, n.AgentIP, states)
	if err != nil {
		return State{}, err
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return State{}, fmt.Errorf("making an instance id: %w", err)
	}
	state = State{
		SchemaVersion: stateSchema,
		ID:            hex.EncodeToString(id[:]),
		Created:       time.Now().UTC().Truncate(time.Second),
		Subnet:        a.Subnet, FirewallIP: a.Firewall, AgentIP: a.Agent,
	}
	return state, writeState(c.Dir, state)
}

// warnMoved tells of pinned addresses that are not those of the instance: what
// was allocated stays.
func (c *Cell) warnMoved(cfg config.Config, s State) {
	if cfg.Network.Pinned() && (cfg.Network.FirewallIP != s.FirewallIP || cfg.Network.AgentIP != s.AgentIP) {
		c.Warn(fmt.Sprintf("instance %q keeps the addresses %v and %v that it was created with; the configured %v and %v take effect for new instances only",
			c.Name, s.FirewallIP, s.AgentIP, cfg.Network.FirewallIP, cfg.Network.AgentIP))
	}
}

// State is what was allocated for the instance; an error that wraps
// fs.ErrNotExist when nothing was yet.
func (c *Cell) State() (State, error) { return readState(c.Dir) }

// update changes the state on disk. The caller holds the lock.
func (c *Cell) update(change func(*State)) error {
	s, err := readState(c.Dir)
	if err != nil {
		return err
	}
	change(&s)
	return writeState(c.Dir, s)
}

// record notes how a command that changed the instance ended. It must not hide
// that command's own error, so its own failure is only logged.
func (c *Cell) record(verb string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	if updateErr := c.update(func(s *State) {
		s.LastError = nil
		if err != nil {
			s.LastError = &LastError{Time: time.Now().UTC().Truncate(time.Second), Command: verb, Text: err.Error()}
		}
	}); updateErr != nil {
		c.Logger.Debug("recording the end of a command", "verb", verb, "error", updateErr)
	}
}

// prefixed is an address of the link with the link's prefix length.
func prefixed(a netip.Addr) string { return netip.PrefixFrom(a, 24).String() }
