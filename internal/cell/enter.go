package cell

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/rootcell-ai/rootcell/internal/sshx"
)

// Session is what runs in the agent, and how it is connected.
type Session struct {
	Argv           []string // nil opens a login shell
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	PTY            *sshx.PTY // nil for plain streams
	TryEnv         map[string]string
	Ready          func() // called once, before the session begins
}

// Enter brings the cell up if needed and runs a session in the agent. It
// returns the session's own exit status, or ExitTransport with an error when
// the connection broke. The instance is locked until the session begins, not
// while it runs.
func (c *Cell) Enter(ctx context.Context, s Session) (int, error) {
	l, err := c.linkUp(ctx)
	if err != nil {
		return ExitCode(err), err
	}
	defer l.Close()
	s.Ready()
	begun := time.Now()
	defer func() { c.Logger.Debug("session ended", "took", time.Since(begun)) }()
	code, err := l.agent.Run(ctx, sshx.Command{
		Argv: s.Argv, Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr,
		PTY: s.PTY, TryEnv: s.TryEnv,
	})
	if err != nil {
		if ctx.Err() != nil {
			return ExitInterrupted, context.Cause(ctx)
		}
		return ExitTransport, &Error{Code: ExitTransport, Err: c.agentError(err)}
	}
	return code, nil
}

// linkUp is a link to an agent that runs, brought up if needed, with the live
// allowlists in force.
func (c *Cell) linkUp(ctx context.Context) (*link, error) {
	lock, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	cfg, state, err := c.prepare(ctx)
	if err != nil {
		return nil, err
	}
	_, p, err := c.provider(cfg, state)
	if err != nil {
		return nil, err
	}
	up, err := c.running(ctx, p, state)
	if err != nil {
		return nil, err
	}
	if !up {
		l, err := c.upLocked(ctx, cfg, state, UpOptions{})
		c.record("up", err)
		return l, err
	}
	if state.Configured != configuredDigest(cfg) {
		c.Tell("the configuration changed since the machines were started; " + c.Hint("up") + " applies it")
	}
	lock.Release()
	l, err := c.connect(ctx, p, state, cfg.Guest.User)
	if err != nil {
		return nil, err
	}
	// The firewall answers for its policy while the agent's handshake is under
	// way: both are slow on an emulated machine.
	synced := make(chan error, 1)
	go func() { synced <- l.sync(ctx) }()
	err = l.enter(ctx)
	// Invariant: no session begins before the live allowlists are in force
	// (TestEnterPushesChangedLists).
	if err = errors.Join(err, <-synced); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
