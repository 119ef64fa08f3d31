//go:build linux

// Package supervise keeps programs running under a PID 1: it starts them again
// when they end, buries orphans, and stops everything in the end.
package supervise

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// restartDelay is the pause before a program that ended is started again.
	// A program that dies at once costs a start a restartDelay, no more.
	restartDelay = 250 * time.Millisecond
	stopTimeout  = 3 * time.Second // between SIGTERM and SIGKILL
)

// Set is the programs that one PID 1 keeps. Make it with New.
type Set struct {
	log *slog.Logger
	wg  sync.WaitGroup

	mu       sync.Mutex // protects all the following
	children map[int]bool
	restarts map[string]int
}

// New returns an empty set that logs to log.
func New(log *slog.Logger) *Set {
	return &Set{log: log, children: map[int]bool{}, restarts: map[string]int{}}
}

// Program is one program to keep running.
type Program struct {
	Name   string
	Argv   []string
	Env    []string
	Output io.Writer // standard output and error
}

// Keep runs p, and again each time it ends, until ctx ends; then p gets
// SIGTERM and, after a while, SIGKILL. It returns at once.
func (s *Set) Keep(ctx context.Context, p Program) {
	s.wg.Go(func() {
		for ctx.Err() == nil {
			err := s.run(ctx, p)
			if ctx.Err() != nil {
				return
			}
			s.log.Error("program ended; starting it again", "program", p.Name, "err", err)
			s.mu.Lock()
			s.restarts[p.Name]++
			s.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(restartDelay):
			}
		}
	})
}

// Restarts tells how often each program was started again.
func (s *Set) Restarts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	restarts := make(map[string]int, len(s.restarts))
	for name, n := range s.restarts {
		restarts[name] = n
	}
	return restarts
}

// Wait returns when every program of Keep has ended, after its context did.
func (s *Set) Wait() { s.wg.Wait() }

func (s *Set) run(ctx context.Context, p Program) error {
	cmd := exec.CommandContext(ctx, p.Argv[0], p.Argv[1:]...)
	cmd.Env = p.Env
	cmd.Stdout, cmd.Stderr = p.Output, p.Output
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	return s.Run(cmd)
}

// Run starts cmd and waits for it. Every program that a PID 1 with a running
// Reap starts must go through Run, or Reap may take its exit status.
func (s *Set) Run(cmd *exec.Cmd) error {
	// The lock spans the start, so that Reap never sees a child that is not
	// yet known to be ours.
	s.mu.Lock()
	err := cmd.Start()
	if err == nil {
		s.children[cmd.Process.Pid] = true
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("starting %q: %w", cmd.Path, err)
	}
	err = cmd.Wait()
	s.mu.Lock()
	delete(s.children, cmd.Process.Pid)
	s.mu.Unlock()
	return err
}

// Reap buries orphans that fall to this process each time a signal arrives on
// childEnded, until ctx ends. Children started with Run are left to Run.
func (s *Set) Reap(ctx context.Context, childEnded <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-childEnded:
			s.buryOrphans("/proc", os.Getpid())
		}
	}
}

func (s *Set) buryOrphans(proc string, self int) {
	entries, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "stat"))
	if err != nil {
		return
	}
	for _, entry := range entries {
		text, err := os.ReadFile(entry)
		if err != nil {
			continue
		}
		pid, parent, state := parseStat(string(text))
		if state != "Z" || parent != self {
			continue
		}
		s.mu.Lock()
		if !s.children[pid] {
			var status unix.WaitStatus
			if _, err := unix.Wait4(pid, &status, unix.WNOHANG, nil); err == nil {
				s.log.Info("buried an orphan", "pid", pid)
			}
		}
		s.mu.Unlock()
	}
}

// parseStat reads the ids and the state of /proc/PID/stat. The command name in
// it is in parentheses and may hold anything, parentheses included.
func parseStat(text string) (pid, parent int, state string) {
	end := strings.LastIndexByte(text, ')')
	start := strings.IndexByte(text, ' ')
	if start < 0 || end < start {
		return 0, 0, ""
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) < 2 {
		return 0, 0, ""
	}
	pid, err := strconv.Atoi(text[:start])
	if err != nil {
		return 0, 0, ""
	}
	parent, err = strconv.Atoi(fields[1])
	if err != nil {
		return 0, 0, ""
	}
	return pid, parent, fields[0]
}
