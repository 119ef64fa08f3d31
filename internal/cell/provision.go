package cell

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/config"
	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/provision"
	"github.com/rootcell-ai/rootcell/internal/sshx"
)

// provision runs the steps that the agent has not been through, or all of them
// when again is set. The caller holds the instance's lock.
func (l *link) provision(ctx context.Context, cfg config.Config, state State, again bool) error {
	c := l.cell
	desired, err := c.desired(ctx, cfg)
	if err != nil {
		return err
	}
	steps := provision.Steps(desired)
	want := provision.Digest(steps)
	if state.Provisioned == want && !again {
		return nil
	}
	c.Report("provisioning the agent")
	// Invariant: an agent counts as provisioned only after all steps are done
	// (TestFailedProvisioningIsRepeated).
	if state.Provisioned != "" {
		if err := c.update(func(s *State) { s.Provisioned = "" }); err != nil {
			return err
		}
	}
	out, err := l.agent.Exchange(ctx, 1<<20, strings.NewReader(provision.Script(steps)), "sh", "-s")
	var exit *sshx.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("provisioning the agent of instance %q: step %s failed: %s; %s tries again",
			c.Name, failedSteps(out), strings.TrimSpace(exit.Stderr), c.Hint("provision"))
	}
	if err != nil {
		return c.agentError(err)
	}
	return c.update(func(s *State) { s.Provisioned = want })
}

func failedSteps(out []byte) string {
	var failed []string
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) == 3 && words[0] == "step" && words[2] == "failed" {
			failed = append(failed, words[1])
		}
	}
	if len(failed) == 0 {
		return "unknown"
	}
	return strings.Join(failed, ", ")
}

// desired is the state of the agent, from the configuration and the host.
func (c *Cell) desired(ctx context.Context, cfg config.Config) (provision.Desired, error) {
	d := provision.Desired{
		GitName: c.hostGit(ctx, "user.name"), GitEmail: c.hostGit(ctx, "user.email"),
		Harness: cfg.Guest.Harness, Packages: cfg.Guest.Packages,
		KeyComment: cfg.Guest.User + "@" + MachineName(provider.RoleAgent, c.Name),
	}
	dirs := []string{c.path("pi", "agent")}
	if c.Root.ProjectConfig != "" {
		dirs = append(dirs, filepath.Join(filepath.Dir(c.Root.ProjectConfig), "pi", "agent"))
	}
	for _, dir := range dirs {
		archive, err := provision.Archive(dir)
		if err != nil {
			return d, err
		}
		if archive != nil {
			d.Files = archive
			break
		}
	}
	return d, nil
}

// gitTimeout bounds the question to the host's Git, whose configuration may
// lie on a slow network.
const gitTimeout = 5 * time.Second

// hostGit is a value of the host's global Git configuration, "" when there is
// none or no Git.
func (c *Cell) hostGit(ctx context.Context, key string) string {
	ctx, cancel := context.WithTimeout(ctx, gitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", "config", "--global", "--get", key)
	cmd.Env = c.Environ
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	value := strings.TrimSpace(string(out))
	if strings.ContainsAny(value, "\x00\r\n") {
		return ""
	}
	return value
}
