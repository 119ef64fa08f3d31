package sshx

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	client := connectSSHD(t, "AcceptEnv TOKEN LANG")
	tests := map[string]struct {
		command Command
		stdin   string
		stdout  string
		stderr  string
		status  int
	}{
		"streams are apart":                 {command: Command{Line: "cat; echo oops >&2"}, stdin: "hello\n", stdout: "hello\n", stderr: "oops\n"},
		"the status is the command's":       {command: Command{Line: "exit 7"}, status: 7},
		"255 of the command is no failure":  {command: Command{Line: "exit 255"}, status: 255},
		"a signal is 128 and its number":    {command: Command{Line: "kill -TERM $$"}, status: 143},
		"SIGKILL too":                       {command: Command{Line: "kill -KILL $$"}, status: 137},
		"words stay words":                  {command: Command{Argv: []string{"printf", `[%s]`, "a b", "'", `"$HOME"`, "*", "", "line\nend", `\`}}, stdout: "[a b]['][\"$HOME\"][*][][line\nend][\\]"},
		"a variable is set":                 {command: Command{Line: `printf %s "$TOKEN"`, Env: map[string]string{"TOKEN": "s3 'cr\"et"}}, stdout: "s3 'cr\"et"},
		"a wanted variable may be refused":  {command: Command{Line: `printf %s "$NOPE"`, TryEnv: map[string]string{"NOPE": "x", "LANG": "C"}}},
		"no input is an end of input":       {command: Command{Line: "cat"}},
		"nothing to run is the login shell": {command: Command{}, stdin: "echo $((6*7))\nexit 3\n", stdout: "42\n", status: 3},
		"unread input does no harm":         {command: Command{Line: "true"}, stdin: strings.Repeat("x", 1<<20)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			test.command.Stdout, test.command.Stderr = &stdout, &stderr
			if test.stdin != "" {
				test.command.Stdin = strings.NewReader(test.stdin)
			}
			status, err := client.Run(t.Context(), test.command)
			if err != nil {
				t.Fatal(err)
			}
			if status != test.status || stdout.String() != test.stdout || stderr.String() != test.stderr {
				t.Errorf("status %d, stdout %q, stderr %q; want %d, %q, %q",
					status, stdout.String(), stderr.String(), test.status, test.stdout, test.stderr)
			}
		})
	}
}

func TestRunFailsWhenAVariableIsRefused(t *testing.T) {
	client := connectSSHD(t)
	status, err := client.Run(t.Context(), Command{Line: "true", Env: map[string]string{"SECRET": "hunter2"}})
	if status != ExitTransport || err == nil || !strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Run = %d, %v; want 255 and an error that names SECRET and not its value", status, err)
	}
}

func TestRunCarriesBytesUnchanged(t *testing.T) {
	client := connectSSHD(t)
	sent := make([]byte, 5<<20)
	if _, err := rand.Read(sent); err != nil {
		t.Fatal(err)
	}
	var received bytes.Buffer
	status, err := client.Run(t.Context(), Command{Line: "cat", Stdin: bytes.NewReader(sent), Stdout: &received})
	if err != nil || status != 0 || !bytes.Equal(received.Bytes(), sent) {
		t.Errorf("Run = %d, %v, %d bytes came back; want 0 and the same %d", status, err, received.Len(), len(sent))
	}
}

func TestOneConnectionServesManyCommands(t *testing.T) {
	client := connectSSHD(t)
	results := make(chan error)
	for range 8 {
		go func() {
			out, err := client.Output(t.Context(), 100, "echo", "hi")
			if err == nil && string(out) != "hi\n" {
				err = errors.New("unexpected answer " + string(out))
			}
			results <- err
		}()
	}
	for range 8 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestALostConnectionIs255(t *testing.T) {
	client := connectSSHD(t)
	started := writerFunc(func(p []byte) (int, error) { go client.Close(); return len(p), nil })
	status, err := client.Run(t.Context(), Command{Line: "echo go; sleep 1000", Stdout: started})
	if status != ExitTransport || err == nil {
		t.Errorf("Run = %d, %v; want 255 and an error", status, err)
	}
	if _, err := client.Run(t.Context(), Command{Line: "true"}); err == nil {
		t.Error("a closed connection runs commands")
	}
}

func TestOutputIsBounded(t *testing.T) {
	client := connectSSHD(t)
	begun := time.Now()
	if out, err := client.Output(t.Context(), 1000, "yes"); err == nil {
		t.Errorf("an endless answer gave %d bytes", len(out))
	}
	if taken := time.Since(begun); taken > time.Minute {
		t.Errorf("it took %v to give up", taken)
	}
	_, err := client.Output(t.Context(), 1000, "sh", "-c", `printf '\033]0;gotcha\007' >&2; exit 4`)
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Status != 4 || strings.ContainsRune(err.Error(), 0x1b) {
		t.Errorf("Output = %q, want status 4 without an escape character", err)
	}
}

func TestInputStopsWithTheCommand(t *testing.T) {
	client := connectSSHD(t)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	if status, err := client.Run(t.Context(), Command{Line: "true", Stdin: reader}); status != 0 || err != nil {
		t.Fatalf("Run = %d, %v", status, err)
	}
	if _, err := writer.WriteString("for the next reader"); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	if rest, err := io.ReadAll(reader); err != nil || string(rest) != "for the next reader" {
		t.Errorf("the next reader gets %q, %v", rest, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
