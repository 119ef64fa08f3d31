//go:build linux

package supervise

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestKeepStartsAProgramAgain(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	lines := make(chan string)
	s.Keep(ctx, Program{Name: "p", Argv: []string{"/bin/sh", "-c", "echo up; exit 1"}, Output: writer(lines)})
	for range 3 {
		if line := <-lines; line != "up\n" {
			t.Errorf("printed %q", line)
		}
	}
	cancel()
	go func() {
		for range lines { // whatever was on its way
		}
	}()
	s.Wait()
	close(lines)
	if n := s.Restarts()["p"]; n < 2 {
		t.Errorf("counted %d restarts, want at least 2", n)
	}
}

func TestKeepStopsAProgram(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	lines := make(chan string, 9)
	s.Keep(ctx, Program{Name: "p", Argv: []string{"/bin/sh", "-c", "trap 'echo down; exit 0' TERM; echo up; while :; do sleep 0.05; done"}, Output: writer(lines)})
	if line := <-lines; line != "up\n" {
		t.Fatalf("printed %q", line)
	}
	cancel()
	s.Wait()
	if line := <-lines; line != "down\n" {
		t.Errorf("printed %q, want to be asked to end first", line)
	}
}

type writer chan string

func (w writer) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func TestRunReportsAMissingProgram(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler))
	if err := s.Run(exec.Command(filepath.Join(t.TempDir(), "none"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Run = %v", err)
	}
}

func TestParseStat(t *testing.T) {
	cases := map[string]struct {
		text   string
		pid    int
		parent int
		state  string
	}{
		"a zombie":                      {"42 (sh) Z 1 42 42 0", 42, 1, "Z"},
		"a name made to look like one":  {"42 (x) Z 1 (y) S 7 42", 42, 7, "S"},
		"a name of many words":          {"42 (a b) c) R 3 1", 42, 3, "R"},
		"nothing":                       {"", 0, 0, ""},
		"no name":                       {"42 Z 1", 0, 0, ""},
		"nothing after the name":        {"42 (sh)", 0, 0, ""},
		"a parent that is not a number": {"42 (sh) Z x", 0, 0, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pid, parent, state := parseStat(tc.text)
			if pid != tc.pid || parent != tc.parent || state != tc.state {
				t.Errorf("parseStat = %d, %d, %q", pid, parent, state)
			}
		})
	}
}
