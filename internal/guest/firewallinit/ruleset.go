//go:build linux

package firewallinit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"

	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

const rulesetTimeout = 30 * time.Second

// loadRuleset takes the ruleset from the daemon's program, loads it in one
// transaction, and asks the kernel whether it holds.
//
// Invariant: nothing brings an interface up before this returned nil
// (ATTACKS K1 and K2).
func loadRuleset(ctx context.Context, run func(*exec.Cmd) error) error {
	ctx, cancel := context.WithTimeout(ctx, rulesetTimeout)
	defer cancel()
	ruleset, err := output(ctx, run, nil, firewallBinary, "ruleset", "--config", guestcfg.FirewallTOMLPath)
	if err != nil {
		return fmt.Errorf("rendering the ruleset: %w", err)
	}
	if _, err := output(ctx, run, ruleset, nftBinary, "-f", "-"); err != nil {
		return fmt.Errorf("loading the ruleset: %w", err)
	}
	listing, err := output(ctx, run, nil, nftBinary, "-j", "list", "chains")
	if err != nil {
		return fmt.Errorf("reading the ruleset back: %w", err)
	}
	return CheckChains(listing)
}

// CheckChains reads what `nft -j list chains` printed and tells whether the
// table's input, forward and output hooks drop by default.
func CheckChains(listing []byte) error {
	var parsed struct {
		Nftables []struct {
			Chain *struct {
				Family, Table, Type, Hook, Policy string
			}
		}
	}
	if err := json.Unmarshal(listing, &parsed); err != nil {
		return fmt.Errorf("reading the ruleset back: %w", err)
	}
	dropped := map[string]bool{}
	for _, entry := range parsed.Nftables {
		c := entry.Chain
		if c != nil && c.Family == "inet" && c.Table == "rootcell" && c.Type == "filter" && c.Policy == "drop" {
			dropped[c.Hook] = true
		}
	}
	for _, hook := range []string{"input", "forward", "output"} {
		if !dropped[hook] {
			return fmt.Errorf("checking the ruleset: table inet rootcell does not drop by default at %s", hook)
		}
	}
	return nil
}

// output runs a program and returns its standard output; the error holds what
// it said on standard error.
func output(ctx context.Context, run func(*exec.Cmd) error, stdin []byte, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := run(cmd); err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}
