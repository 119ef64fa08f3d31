package sshx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

// ExitTransport is the exit status for a command whose own status is unknown
// because the connection failed, as ssh(1) has it.
const ExitTransport = 255

// interruptGrace is how long a command may take to end after its context was
// cancelled and it was sent SIGINT.
const interruptGrace = 2 * time.Second

// Command is something to run on the server.
type Command struct {
	// Line goes to the user's shell as it is. Argv is quoted for that shell
	// and takes precedence. With neither, a login shell is started.
	Line string
	Argv []string
	// Stdin may be nil for no input. Reading from an *os.File stops when the
	// command ends, so that nothing of the next input is lost.
	Stdin          io.Reader
	Stdout, Stderr io.Writer // nil discards
	// PTY asks for a terminal. Stderr then stays empty.
	PTY *PTY
	// Env is set for the command alone, by requests inside the encrypted
	// connection and never in arguments. A server that refuses a variable
	// makes Run fail.
	Env map[string]string
	// TryEnv is like Env, but a server may ignore it. It suits LANG and the like.
	TryEnv map[string]string
	// Signals are forwarded to the command; nil for none.
	Signals <-chan os.Signal
}

// Run runs a command and returns its exit status, 128+n when signal n killed
// it, or ExitTransport with an error when that cannot be known. When ctx is
// cancelled the command gets SIGINT and two seconds to end. A terminal is back
// in its former state when Run returns.
func (c *Client) Run(ctx context.Context, command Command) (int, error) {
	session, err := c.ssh.NewSession()
	if err != nil {
		return ExitTransport, fmt.Errorf("opening SSH session: %w", err)
	}
	defer session.Close()
	if err := setEnvironment(session, command); err != nil {
		return ExitTransport, err
	}
	session.Stdout, session.Stderr = command.Stdout, command.Stderr
	stdin, err := session.StdinPipe()
	if err != nil {
		return ExitTransport, fmt.Errorf("opening SSH session: %w", err)
	}
	if command.PTY != nil {
		restore, err := command.PTY.attach(session)
		if err != nil {
			return ExitTransport, err
		}
		defer restore()
	}
	if err := start(session, command); err != nil {
		return ExitTransport, fmt.Errorf("starting command by SSH: %w", err)
	}
	input, stop := interruptible(command.Stdin)
	go func() {
		// What cannot be written the command did not want to read.
		_, _ = io.Copy(stdin, input)
		_ = stdin.Close()
	}()
	defer stop()

	ended := make(chan error, 1)
	go func() { ended <- session.Wait() }()
	return c.follow(ctx, session, command.Signals, ended)
}

// follow waits for the end of a session while passing signals on.
func (c *Client) follow(ctx context.Context, session *ssh.Session, signals <-chan os.Signal, ended <-chan error) (int, error) {
	cancelled := ctx.Done()
	var expired <-chan time.Time
	for {
		select {
		case err := <-ended:
			return exitStatus(err)
		case s := <-signals:
			if name, ok := signalName(s); ok {
				_ = session.Signal(name)
			}
		case <-cancelled:
			cancelled = nil
			if errors.Is(context.Cause(ctx), errTooLong) {
				return ExitTransport, errTooLong
			}
			_ = session.Signal(ssh.SIGINT)
			timer := time.NewTimer(interruptGrace)
			defer timer.Stop()
			expired = timer.C
		case <-expired:
			return ExitTransport, fmt.Errorf("running command by SSH: %w", context.Cause(ctx))
		}
	}
}

func start(session *ssh.Session, command Command) error {
	switch {
	case command.Argv != nil:
		return session.Start(Quote(command.Argv...))
	case command.Line != "":
		return session.Start(command.Line)
	default:
		return session.Shell()
	}
}

// Output runs a command without input and returns what it printed on standard
// output, at most limit bytes of it. A status other than 0 is an error with the
// command's last words on standard error.
func (c *Client) Output(ctx context.Context, limit int64, argv ...string) ([]byte, error) {
	return c.Exchange(ctx, limit, nil, argv...)
}

// Exchange is Output with input.
func (c *Client) Exchange(ctx context.Context, limit int64, stdin io.Reader, argv ...string) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stdout := &capped{limit: limit, full: func() { cancel(errTooLong) }}
	stderr := &capped{limit: 4 << 10}
	status, err := c.Run(ctx, Command{Argv: argv, Stdin: stdin, Stdout: stdout, Stderr: stderr})
	switch {
	case stdout.over:
		return nil, fmt.Errorf("running %q by SSH: the answer has more than %d bytes", argv[0], limit)
	case err != nil:
		return nil, err
	case status != 0:
		return stdout.data, &ExitError{Program: argv[0], Status: status, Stderr: string(stderr.data)}
	}
	return stdout.data, nil
}

// ExitError is the end of a command with a status other than 0.
type ExitError struct {
	Program string
	Status  int
	Stderr  string // the first 4 KiB of it, untrusted
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("%s exited with status %d", e.Program, e.Status)
	if e.Stderr != "" {
		// The quotes keep a guest's control characters off the terminal.
		text += fmt.Sprintf(": %q", e.Stderr)
	}
	return text
}

// capped keeps the first limit bytes and drops the others, which is told to
// full unless that is nil.
type capped struct {
	data  []byte
	limit int64
	full  func()
	over  bool
}

var errTooLong = errors.New("too many bytes")

func (w *capped) Write(p []byte) (int, error) {
	room := max(0, w.limit-int64(len(w.data)))
	w.data = append(w.data, p[:min(int64(len(p)), room)]...)
	if int64(len(p)) > room && !w.over {
		w.over = true
		if w.full != nil {
			w.full()
		}
	}
	return len(p), nil
}

func setEnvironment(session *ssh.Session, command Command) error {
	for _, name := range slices.Sorted(maps.Keys(command.Env)) {
		if err := session.Setenv(name, command.Env[name]); err != nil {
			return fmt.Errorf("setting %s by SSH: the server refused it or is gone: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(command.TryEnv)) {
		payload := ssh.Marshal(struct{ Name, Value string }{name, command.TryEnv[name]})
		if _, err := session.SendRequest("env", false, payload); err != nil {
			return fmt.Errorf("setting %s by SSH: %w", name, err)
		}
	}
	return nil
}

func exitStatus(err error) (int, error) {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.Signal() != "":
		return 128 + signalNumber(exit.Signal()), nil
	case errors.As(err, &exit):
		return exit.ExitStatus(), nil
	}
	return ExitTransport, fmt.Errorf("running command by SSH: %w", err)
}
