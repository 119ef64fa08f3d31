package sshx

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// connectPTY is connectSSHD for commands with a terminal.
func connectPTY(t *testing.T) *Client {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("an sshd without root cannot hand out terminals")
	}
	return connectSSHD(t)
}

func TestPTYWithoutATerminal(t *testing.T) {
	client := connectPTY(t)
	var out bytes.Buffer
	status, err := client.Run(t.Context(), Command{
		Line: `tty -s && echo yes; echo "$TERM"; stty size; echo err >&2; exit 3`, Stdout: &out,
		PTY: &PTY{Type: "vt220", Columns: 111, Rows: 33},
	})
	if want := "yes\r\nvt220\r\n33 111\r\nerr\r\n"; err != nil || status != 3 || out.String() != want {
		t.Errorf("Run = %d, %v, %q; want 3 and %q", status, err, out.String(), want)
	}
}

// terminal is the host's side of a session: what a person types and sees.
type terminal struct {
	person, tty *os.File
	screen      *bufio.Reader
}

func newTerminal(t *testing.T) terminal {
	person, tty, err := pty.Open()
	if err != nil {
		t.Skipf("this machine gives no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { person.Close(); tty.Close() })
	if err := pty.Setsize(person, &pty.Winsize{Rows: 30, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	return terminal{person, tty, bufio.NewReader(person)}
}

func (s terminal) command(line string) Command {
	return Command{Line: line, Stdin: s.tty, Stdout: s.tty, PTY: &PTY{Type: "xterm", Terminal: s.tty}}
}

// ended puts a line on the screen, so that nobody waits for another one.
func (s terminal) ended() { _, _ = s.tty.WriteString("the command has ended\n") }

func (s terminal) expect(t *testing.T, want string) {
	t.Helper()
	line, err := s.screen.ReadString('\n')
	if err != nil || strings.TrimRight(line, "\r\n") != want {
		t.Fatalf("the screen shows %q (%v), want %q", line, err, want)
	}
}

func (s terminal) cooked(t *testing.T) term.State {
	t.Helper()
	state, err := term.GetState(int(s.tty.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return *state
}

func TestPTYFollowsTheTerminal(t *testing.T) {
	client := connectPTY(t)
	s := newTerminal(t)
	before := s.cooked(t)
	type result struct {
		status int
		err    error
	}
	ended := make(chan result, 1)
	go func() {
		defer s.ended()
		status, err := client.Run(t.Context(), s.command(`stty -echo; stty size; trap 'stty size; exit 4' WINCH; trap 'echo int' INT; echo ready; while :; do sleep 0.05; done`))
		if err != nil {
			t.Error(err)
		}
		ended <- result{status, err}
	}()
	s.expect(t, "30 100")
	s.expect(t, "ready")
	if s.cooked(t) == before {
		t.Error("the terminal is not in raw mode while the command runs")
	}
	if _, err := s.person.WriteString("\x03"); err != nil { // Ctrl-C goes to the agent
		t.Fatal(err)
	}
	s.expect(t, "int")
	if err := pty.Setsize(s.person, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	s.expect(t, "40 120")
	if r := <-ended; r.status != 4 || r.err != nil {
		t.Errorf("Run = %d, %v; want 4", r.status, r.err)
	}
	if s.cooked(t) != before {
		t.Error("the terminal was not restored")
	}
}

func TestPTYRestoresTheTerminalWhateverHappens(t *testing.T) {
	tests := map[string]func(client *Client, cancel func()){
		"the connection is lost":   func(client *Client, _ func()) { client.Close() },
		"the context is cancelled": func(_ *Client, cancel func()) { cancel() },
	}
	for name, happen := range tests {
		t.Run(name, func(t *testing.T) {
			client := connectPTY(t)
			s := newTerminal(t)
			before := s.cooked(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan int, 1)
			go func() {
				defer s.ended()
				status, _ := client.Run(ctx, s.command("trap '' INT; echo ready; sleep 1000"))
				ended <- status
			}()
			s.expect(t, "ready")
			happen(client, cancel)
			if status := <-ended; status != ExitTransport {
				t.Errorf("Run = %d, want %d", status, ExitTransport)
			}
			if s.cooked(t) != before {
				t.Error("the terminal was not restored")
			}
		})
	}
}
