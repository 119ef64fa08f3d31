package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
)

func newUI(options Options, environment map[string]string) (u *UI, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	if options.Stdout == nil {
		options.Stdout = stdout
	}
	if options.Stderr == nil {
		options.Stderr = stderr
	}
	options.Getenv = func(name string) string { return environment[name] }
	return New(options), stdout, stderr
}

func TestTable(t *testing.T) {
	u, stdout, _ := newUI(Options{}, nil)
	u.Table([]string{"instance", "vm", "state"}, [][]string{
		{"default", "agent", "running"}, {"日本", "firewall", ""}, {"x\x1b[31m", "a\nb", "e"},
	})
	want := "INSTANCE   VM        STATE\n" +
		"default    agent     running\n" +
		"日本       firewall\n" +
		`x\x1b[31m  a\nb      e` + "\n"
	if diff := cmp.Diff(want, stdout.String()); diff != "" {
		t.Errorf("unexpected table (-want +got):\n%s", diff)
	}
}

func TestAnswer(t *testing.T) {
	tests := map[string]struct {
		value any
		want  string
	}{
		"fields":          {map[string]any{"a": 1, "b": "<&>"}, `{"schemaVersion":1,"a":1,"b":"<&>"}`},
		"no fields":       {struct{}{}, `{"schemaVersion":1}`},
		"control in text": {map[string]string{"a": "\x1b[2J\u009b\u202e\U000e0001é\n"}, `{"schemaVersion":1,"a":"\u001b[2J\u009b\u202e\udb40\udc01é\n"}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			u, stdout, _ := newUI(Options{}, nil)
			if err := u.AnswerLine(test.value); err != nil {
				t.Fatal(err)
			}
			if got := stdout.String(); got != test.want+"\n" {
				t.Errorf("AnswerLine wrote %s, want %s", got, test.want)
			}
			stdout.Reset()
			if err := u.Answer(test.value); err != nil {
				t.Fatal(err)
			}
			var got, want any
			if err := errors.Join(json.Unmarshal(stdout.Bytes(), &got), json.Unmarshal([]byte(test.want), &want)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Answer differs (-want +got):\n%s", diff)
			}
		})
	}
	u, _, _ := newUI(Options{}, nil)
	for _, bad := range []any{[]int{1}, "text", nil, func() {}} {
		if err := u.Answer(bad); err == nil {
			t.Errorf("Answer(%T) has no error", bad)
		}
	}
}

func TestError(t *testing.T) {
	err := fmt.Errorf("entering: %w", WithHint(errors.New("the cell\x1b[2J is\nnot up"), "run `rootcell up`"))
	u, stdout, stderr := newUI(Options{}, nil)
	u.Error(err, 1)
	want := "rootcell: entering: the cell\\x1b[2J is\nrootcell: not up\nhint: run `rootcell up`\n"
	if stderr.String() != want || stdout.Len() > 0 {
		t.Errorf("stderr %q, stdout %q; want %q and nothing", stderr.String(), stdout.String(), want)
	}
	u, stdout, stderr = newUI(Options{JSON: true}, nil)
	u.Error(err, 3)
	var got any
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	wantJSON := map[string]any{"schemaVersion": 1.0, "error": map[string]any{
		"message": "entering: the cell\x1b[2J is\nnot up", "hint": "run `rootcell up`", "exitCode": 3.0,
	}}
	if diff := cmp.Diff(wantJSON, got); diff != "" || stderr.Len() > 0 {
		t.Errorf("unexpected JSON (-want +got):\n%s\nstderr: %s", diff, stderr.String())
	}
}

func TestMessagesAreMarkedAndSafe(t *testing.T) {
	u, stdout, stderr := newUI(Options{}, nil)
	u.Infof("one %s\n", "\x1b]0;x\a")
	u.Warnf("two\nthree")
	u.Hintf("four")
	want := "rootcell: one \\x1b]0;x\\x07\nrootcell: warning: two\nrootcell: warning: three\nhint: four\n"
	if stderr.String() != want || stdout.Len() > 0 {
		t.Errorf("stderr %q, stdout %q; want %q and nothing", stderr.String(), stdout.String(), want)
	}
}

func TestColours(t *testing.T) {
	tests := map[string]struct {
		environment map[string]string
		options     Options
		terminal    bool
		want        bool
	}{
		"a terminal":                      {terminal: true, want: true},
		"a pipe":                          {},
		"NO_COLOR":                        {terminal: true, environment: map[string]string{"NO_COLOR": "1"}},
		"--no-color":                      {terminal: true, options: Options{NoColor: true}},
		"a dumb terminal":                 {terminal: true, environment: map[string]string{"TERM": "dumb"}},
		"CLICOLOR=0":                      {terminal: true, environment: map[string]string{"CLICOLOR": "0"}},
		"forced in a pipe":                {environment: map[string]string{"CLICOLOR_FORCE": "1"}, want: true},
		"forced by 0 is not":              {environment: map[string]string{"CLICOLOR_FORCE": "0"}},
		"NO_COLOR beats CLICOLOR_FORCE":   {environment: map[string]string{"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}},
		"--no-color beats CLICOLOR_FORCE": {environment: map[string]string{"CLICOLOR_FORCE": "1"}, options: Options{NoColor: true}},
		"JSON":                            {terminal: true, options: Options{JSON: true}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.terminal {
				test.options.Stdout = openPTY(t).tty
			}
			u, _, _ := newUI(test.options, test.environment)
			if got := u.Style(Bold, "x") != "x"; got != test.want {
				t.Errorf("styled: %v, want %v", got, test.want)
			}
		})
	}
}

func TestTaskInPlainLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, stdout, stderr := newUI(Options{}, nil)
		task := u.Task("building %s", "\x1bimage")
		task.Detail("packages")
		task.Detail("packages")
		task.Bytes(512<<20, 1<<30)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		u.Infof("meanwhile")
		task.Bytes(1<<30, 1<<30)
		task.Done()
		task.Fail()
		want := "rootcell: building \\x1bimage …\n" +
			"rootcell: building \\x1bimage: packages\n" +
			"rootcell: building \\x1bimage: packages  50% 512.0 MiB of 1.0 GiB (15s)\n" +
			"rootcell: meanwhile\n" +
			"rootcell: building \\x1bimage, 1.0 GiB: done in 20s\n"
		if diff := cmp.Diff(want, stderr.String()); diff != "" || stdout.Len() > 0 {
			t.Errorf("unexpected progress (-want +got):\n%s\nstdout %q", diff, stdout.String())
		}
	})
}

type ptyPair struct{ person, tty *os.File }

func openPTY(t *testing.T) ptyPair {
	t.Helper()
	person, tty, err := pty.Open()
	if err != nil {
		t.Skipf("this machine gives no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { person.Close(); tty.Close() })
	if err := pty.Setsize(person, &pty.Winsize{Rows: 24, Cols: 40}); err != nil {
		t.Fatal(err)
	}
	return ptyPair{person, tty}
}

// screen collects what a terminal gets until it is closed.
func (p ptyPair) screen() func() string {
	text := make(chan string, 1)
	go func() {
		// The end of a pseudo-terminal is an error on Linux.
		all, _ := io.ReadAll(p.person)
		text <- string(all)
	}()
	return func() string {
		p.tty.Close()
		return <-text
	}
}

func TestTaskOnATerminal(t *testing.T) {
	p := openPTY(t)
	screen := p.screen()
	now := time.Now()
	u, _, _ := newUI(Options{Stderr: p.tty, Now: func() time.Time { return now }}, map[string]string{"NO_COLOR": "1"})
	outer := u.Task("starting the cell")
	inner := u.Task("downloading a name that is much longer than the terminal is wide")
	u.Infof("a message")
	inner.Done()
	outer.Fail()
	got := strings.ReplaceAll(screen(), "\r\n", "\n")
	for _, want := range []string{
		" starting the cell (0.0s)\r\x1b[K",                                   // drawn and cleared
		" downloading a name that is much longe\r\x1b[Krootcell: a message\n", // clipped, and out of the way of a message
		"rootcell: downloading a name that is much longer than the terminal is wide: done in 0.0s\n",
		"\r\x1b[Krootcell: starting the cell: failed in 0.0s\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	if !strings.HasSuffix(got, "failed in 0.0s\n") {
		t.Errorf("something is drawn behind the end: %q", got)
	}
}

func TestTaskOnADumbTerminalDrawsNothing(t *testing.T) {
	p := openPTY(t)
	screen := p.screen()
	u, _, _ := newUI(Options{Stderr: p.tty}, map[string]string{"TERM": "dumb"})
	u.Task("x").Done()
	if got, want := screen(), "rootcell: x …\r\nrootcell: x: done in 0.0s\r\n"; got != want {
		t.Errorf("the screen shows %q, want %q", got, want)
	}
}

func TestQuestion(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "YES\n": true, "\n": false, "n\n": false, "yikes\n": false} {
		t.Run(answer, func(t *testing.T) {
			p := openPTY(t)
			u, _, _ := newUI(Options{Stdin: p.tty, Stderr: p.tty}, nil)
			if _, err := p.person.WriteString(answer); err != nil {
				t.Fatal(err)
			}
			if got, err := u.Question("remove it?"); err != nil || got != want {
				t.Errorf("Question = %v, %v; want %v", got, err, want)
			}
		})
	}
}

func TestQuestionNeverWaitsForAScript(t *testing.T) {
	reader, writer, err := os.Pipe() // never closed and never written to
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	tty := openPTY(t).tty
	for name, options := range map[string]Options{
		"input from a pipe":    {Stdin: reader, Stderr: tty},
		"messages into a pipe": {Stdin: tty},
		"no input":             {Stderr: tty},
		"JSON":                 {Stdin: tty, Stderr: tty, JSON: true},
	} {
		t.Run(name, func(t *testing.T) {
			u, _, _ := newUI(options, nil)
			if got, err := u.Question("really?"); got || !errors.Is(err, ErrNobody) {
				t.Errorf("Question = %v, %v; want ErrNobody", got, err)
			}
		})
	}
}

func TestElapsed(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0s", 440 * time.Millisecond: "0.4s", 12900 * time.Millisecond: "12s", 185 * time.Second: "3m05s", 130 * time.Minute: "2h10m",
	} {
		if got := Elapsed(d); got != want {
			t.Errorf("Elapsed(%v) = %q, want %q", d, got, want)
		}
	}
}
