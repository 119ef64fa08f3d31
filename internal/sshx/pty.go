package sshx

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"
)

// PTY describes the terminal that a command gets.
type PTY struct {
	// Type is the terminal type, from TERM. Empty means "xterm-256color".
	Type string
	// Terminal is the host's terminal: its size is followed, and it is in raw
	// mode while the command runs. Nil means that there is none, as in
	// `rootcell run -t` from a script; then Columns and Rows count.
	Terminal      *os.File
	Columns, Rows int // zero means 80 by 24
}

// opcodeIUTF8 is ssh-connection's "encoded terminal mode" 42, RFC 8160.
const opcodeIUTF8 = 42

// attach requests the terminal and prepares the host's. The returned function
// undoes all of it and may be called once.
func (p *PTY) attach(session *ssh.Session) (restore func(), err error) {
	kind := p.Type
	if kind == "" {
		kind = "xterm-256color"
	}
	columns, rows := p.size()
	modes := ssh.TerminalModes{ssh.ECHO: 1, opcodeIUTF8: 1, ssh.TTY_OP_ISPEED: 38400, ssh.TTY_OP_OSPEED: 38400}
	if err := session.RequestPty(kind, rows, columns, modes); err != nil {
		return nil, fmt.Errorf("requesting terminal by SSH: %w", err)
	}
	if p.Terminal == nil || !term.IsTerminal(int(p.Terminal.Fd())) {
		return func() {}, nil
	}
	state, err := term.MakeRaw(int(p.Terminal.Fd()))
	if err != nil {
		return nil, fmt.Errorf("switching terminal to raw mode: %w", err)
	}
	stop := p.followSize(session)
	return func() {
		stop()
		// There is nobody to tell when the terminal itself has gone.
		_ = term.Restore(int(p.Terminal.Fd()), state)
	}, nil
}

func (p *PTY) size() (columns, rows int) {
	if p.Terminal != nil {
		if columns, rows, err := term.GetSize(int(p.Terminal.Fd())); err == nil && columns > 0 && rows > 0 {
			return columns, rows
		}
	}
	columns, rows = p.Columns, p.Rows
	if columns <= 0 || rows <= 0 {
		return 80, 24
	}
	return columns, rows
}

// followSize tells the server of every new size of the terminal.
func (p *PTY) followSize(session *ssh.Session) (stop func()) {
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-changes:
				columns, rows := p.size()
				// A connection that ends shows elsewhere.
				_ = session.WindowChange(rows, columns)
			}
		}
	})
	return func() {
		signal.Stop(changes)
		cancel()
		running.Wait()
	}
}
