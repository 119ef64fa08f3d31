//go:build linux

package firewallinit

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

// StatePath holds a State as JSON.
const StatePath = "/run/rootcell/guest.json"

// State is what the init tells the guest's other programs.
type State struct {
	LogDisk string `json:"log_disk"` // "ext4", or "memory: " and why
}

// LoadState reads what the running init wrote.
func LoadState() (State, error) {
	var s State
	text, err := os.ReadFile(StatePath)
	if err != nil {
		return s, fmt.Errorf("reading the init's state: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("reading the init's state: %w", err)
	}
	return s, nil
}

func (s State) save() error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("writing the init's state: %w", err)
	}
	if err := os.WriteFile(StatePath, text, 0o644); err != nil {
		return fmt.Errorf("writing the init's state: %w", err)
	}
	return nil
}

// writeFiles puts the daemon's files where firewall.toml says they are.
//
// Invariant: the daemon can read its key and configuration and replace neither:
// the directory is root's and sticky, the daemon makes its socket in it
// (TestModes).
func writeFiles(root string, cfg guestcfg.Config) error {
	const daemon = guestcfg.FirewallDaemonUID
	run := filepath.Join(root, filepath.Dir(guestcfg.FirewallTOMLPath))
	policy := filepath.Join(root, guestcfg.FirewallPolicyDir)
	for _, dir := range []string{run, policy} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making %q: %w", dir, err)
		}
	}
	if err := os.Chown(run, 0, daemon); err != nil {
		return fmt.Errorf("giving %q to the daemon's group: %w", run, err)
	}
	if err := unix.Chmod(run, 0o1770); err != nil {
		return fmt.Errorf("setting the mode of %q: %w", run, err)
	}
	type file struct {
		path, text string
		mode       os.FileMode
		group      int
	}
	files := []file{
		{filepath.Join(root, guestcfg.FirewallTOMLPath), cfg.Firewall.TOML, 0o640, daemon},
		{filepath.Join(root, guestcfg.FirewallCACert), cfg.Firewall.CACert, 0o644, 0},
		{filepath.Join(root, guestcfg.FirewallCAKey), cfg.Firewall.CAKey.Reveal(), 0o640, daemon},
	}
	if roots := cfg.Firewall.UpstreamRoots; roots != "" {
		files = append(files, file{filepath.Join(root, guestcfg.FirewallRoots), roots, 0o644, 0})
	}
	for name, text := range cfg.Firewall.Policy {
		files = append(files, file{filepath.Join(policy, name), text, 0o644, 0})
	}
	for _, f := range files {
		if err := os.WriteFile(f.path, []byte(f.text), f.mode); err != nil {
			return fmt.Errorf("writing %q: %w", f.path, err)
		}
		if err := os.Chown(f.path, 0, f.group); err != nil {
			return fmt.Errorf("giving %q to group %d: %w", f.path, f.group, err)
		}
	}
	return nil
}
