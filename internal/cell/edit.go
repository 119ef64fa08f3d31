package cell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/rootcell-ai/rootcell/internal/config"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

// EditTargets are the files that Edit knows, by the words of the command line.
// `env` and `secrets` are both parts of rootcell.toml.
func EditTargets() []string { return []string{"env", "http", "https", "dns", "ssh", "secrets"} }

// EditOptions say what to edit and where the editor runs.
type EditOptions struct {
	Target         string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Edit opens a file of the instance in the user's editor and checks it when
// the editor ends. On errors it offers to open it again; what was written stays
// in any case.
func (c *Cell) Edit(ctx context.Context, o EditOptions) error {
	editor := c.getenv("VISUAL")
	if editor == "" {
		editor = c.getenv("EDITOR")
	}
	if editor == "" {
		return errors.New("neither VISUAL nor EDITOR is set; set one, for example EDITOR=nano")
	}
	path, check, err := c.editTarget(o.Target)
	if err != nil {
		return err
	}
	if err := c.seedForEdit(ctx); err != nil {
		return err
	}
	for {
		// The editor's variable may hold arguments, so a shell reads it, as
		// for git and crontab. The file name is no part of the shell's text.
		cmd := exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "sh", path)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = o.Stdin, o.Stdout, o.Stderr
		cmd.Env = c.Environ
		if err := cmd.Run(); err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() > 0 {
				return &Error{Code: exit.ExitCode(), Err: fmt.Errorf("the editor ended with status %d; %q was not checked", exit.ExitCode(), path)}
			}
			return fmt.Errorf("running the editor %q: %w", editor, err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("reading what was edited: %w", err)
		}
		problem := check(path, text)
		if problem == nil {
			return nil
		}
		c.Warn(problem.Error())
		if !c.Ask("Open the file again?") {
			return &Error{Code: ExitUsage, Err: fmt.Errorf("%q has errors and is not in force; mend it with %s", path, c.Hint("edit "+o.Target))}
		}
	}
}

// seedForEdit makes the files that can be edited. The lock is not held while
// the editor runs, which can take hours.
func (c *Cell) seedForEdit(ctx context.Context) error {
	lock, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := makeDir(c.path("proxy")); err != nil {
		return err
	}
	if err := c.seedConfig(); err != nil {
		return err
	}
	return c.seedLists()
}

func (c *Cell) editTarget(target string) (path string, check func(string, []byte) error, err error) {
	list := func(kind policy.Kind) (string, func(string, []byte) error, error) {
		return c.path("proxy", policyfile.FileName(kind)), func(path string, text []byte) error {
			_, problems := policyfile.Parse(kind, path, text)
			for _, w := range problems.Warnings() {
				c.Warn(w.String())
			}
			return problems.Err()
		}, nil
	}
	switch target {
	case "http", "https":
		return list(policy.KindHTTPS)
	case "dns":
		return list(policy.KindDNS)
	case "ssh":
		return list(policy.KindSSH)
	case "env", "secrets":
		return c.path(configFile), config.Check, nil
	}
	return "", nil, usageError("%q cannot be edited; choose one of env, http, https, dns, ssh, secrets", target)
}
