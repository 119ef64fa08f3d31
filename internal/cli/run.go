package cli

import (
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/sshx"
)

// enterCmd is what happens without a command: a login shell.
type enterCmd struct{}

func (c *enterCmd) Run(a *app) error {
	if a.flags.InitEnv != "" {
		return a.initialise(initEnvProvider(a.flags.InitEnv))
	}
	if a.flags.JSON {
		return &usage{"--json does not go with a shell in the agent"}
	}
	return a.session(nil, a.terminal() != nil)
}

// runCmd runs a command with streams, or with a terminal where -t asks for one.
type runCmd struct {
	TTY     bool     `short:"t" name:"tty" help:"Give the command a terminal."`
	Command []string `arg:"" name:"cmd" passthrough:"" help:"The command and its arguments, as they are."`
}

func (c *runCmd) Run(a *app) error {
	argv := c.Command
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	if len(argv) == 0 {
		return &usage{"no command was given to run; `rootcell` alone opens a shell"}
	}
	return a.session(argv, c.TTY)
}

// terminal is the terminal that rootcell runs in, nil when there is none.
func (a *app) terminal() *os.File {
	in, ok := a.Stdin.(*os.File)
	if !ok || in == nil || !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	return in
}

func (a *app) session(argv []string, tty bool) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	s := cell.Session{
		Argv: argv, Stdin: a.Stdin, Stdout: a.Stdout, Stderr: a.Stderr,
		TryEnv: a.locale(),
		Ready:  func() { a.endTask(nil) },
	}
	if tty {
		s.PTY = &sshx.PTY{Type: a.getenv("TERM"), Terminal: a.terminal()}
	}
	code, err := c.Enter(a.ctx, s)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitStatus(code)
	}
	return nil
}

// locale is what of the host's environment suits a session in the agent.
func (a *app) locale() map[string]string {
	env := map[string]string{}
	for _, kv := range a.Environ {
		name, value, _ := strings.Cut(kv, "=")
		if name == "LANG" || name == "COLORTERM" || strings.HasPrefix(name, "LC_") {
			env[name] = value
		}
	}
	return env
}
