package cli

import (
	"fmt"

	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/sshx"
	"github.com/rootcell-ai/rootcell/internal/ui"
)

type cpCmd struct {
	Recursive bool     `short:"r" help:"Copy directories too."`
	Paths     []string `arg:"" name:"path" help:"SRC… DST; \":/path\" is in the agent, all of one side to the other."`
}

func (cmd *cpCmd) Run(a *app) error {
	if len(cmd.Paths) < 2 {
		return &usage{"cp needs at least one source and a destination"}
	}
	c, err := a.cell()
	if err != nil {
		return err
	}
	last := len(cmd.Paths) - 1
	task := a.ui.Task("copying")
	err = c.Copy(a.ctx, sshx.CopyOptions{
		Sources: cmd.Paths[:last], Destination: cmd.Paths[last], Recursive: cmd.Recursive,
		Progress: func(bytes int64, _ string) { task.Bytes(bytes, 0) },
		Note:     func(text string) { a.ui.Warnf("%s", text) },
	})
	if err != nil {
		task.Fail()
		return err
	}
	task.Done()
	return nil
}

type forwardCmd struct {
	Ports []string `arg:"" name:"port" help:"[LOCAL:]PORT; PORT is the agent's."`
}

func (cmd *forwardCmd) Run(a *app) error {
	var forwards []sshx.PortForward
	for _, text := range cmd.Ports {
		f, err := sshx.ParsePortForward(text)
		if err != nil {
			return &usage{err.Error()}
		}
		forwards = append(forwards, f)
	}
	c, err := a.cell()
	if err != nil {
		return err
	}
	return c.Forward(a.ctx, forwards, func(local []int) {
		for i, port := range local {
			a.ui.Infof("127.0.0.1:%d leads to port %d of the agent; interrupt to end", port, forwards[i].Remote)
		}
	})
}

type pubkeyCmd struct{}

func (*pubkeyCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	key, err := c.PubKey(a.ctx)
	if err != nil {
		return err
	}
	return a.answer(struct {
		PublicKey string `json:"publicKey"`
	}{key}, func() { a.ui.Printf("%s", ui.Safe(key)) })
}

type sshConfigCmd struct {
	Path bool `help:"Print only the path of the file that holds it, for ssh -F and Include."`
}

func (cmd *sshConfigCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	text, path, err := c.SSHConfig(a.ctx, a.Executable)
	if err != nil {
		return err
	}
	return a.answer(struct {
		Path   string `json:"path"`
		Config string `json:"config"`
	}{path, text}, func() {
		if cmd.Path {
			a.ui.Printf("%s", path)
			return
		}
		fmt.Fprint(a.Stdout, text)
	})
}

// dialCmd is OpenSSH's ProxyCommand for the firewall.
type dialCmd struct{}

func (*dialCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	conn, err := c.Dial(a.ctx)
	if err != nil {
		return err
	}
	sshx.Splice(a.ctx, conn, a.stdio())
	return nil
}

// stdio is standard input and output as one stream. Closing ends the reading
// of standard input with the process.
func (a *app) stdio() stdio { return stdio{a} }

type stdio struct{ a *app }

func (s stdio) Read(p []byte) (int, error)  { return s.a.Stdin.Read(p) }
func (s stdio) Write(p []byte) (int, error) { return s.a.Stdout.Write(p) }
func (s stdio) Close() error                { return nil }

type editCmd struct {
	Target string `arg:"" enum:"env,http,https,dns,ssh,secrets" help:"env and secrets are the instance's rootcell.toml; http (or https), dns and ssh its allowlists."`
}

func (cmd *editCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	if err := c.Edit(a.ctx, cell.EditOptions{Target: cmd.Target, Stdin: a.Stdin, Stdout: a.Stdout, Stderr: a.Stderr}); err != nil {
		return err
	}
	next := c.Hint("allow")
	if cmd.Target == "env" || cmd.Target == "secrets" {
		next = c.Hint("up")
	}
	a.ui.Infof("%s puts it in force in a running cell", next)
	return nil
}
