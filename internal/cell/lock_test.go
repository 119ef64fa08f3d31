package cell

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSecondHolderWaitsAndIsToldForWhom(t *testing.T) {
	dir := t.TempDir()
	first, err := acquire(t.Context(), dir, LockOptions{Command: "rootcell up"})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan Holder, 1)
	got := make(chan error, 1)
	go func() {
		second, err := acquire(t.Context(), dir, LockOptions{Command: "rootcell stop", Waiting: func(h Holder) { told <- h }})
		second.Release()
		got <- err
	}()
	h := <-told
	if h.PID != os.Getpid() || h.Command != "rootcell up" || time.Since(h.Since) > time.Minute {
		t.Errorf("told of holder %+v", h)
	}
	select {
	case err := <-got:
		t.Fatalf("second command got the lock while the first held it (err %v)", err)
	default:
	}
	first.Release()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestNoWaitNamesTheHolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "work")
	if err := makeDir(dir); err != nil {
		t.Fatal(err)
	}
	first, err := acquire(t.Context(), dir, LockOptions{Command: "rootcell provision"})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Release()
	_, err = acquire(t.Context(), dir, LockOptions{NoWait: true})
	if err == nil {
		t.Fatal("a held lock was given out")
	}
	for _, want := range []string{`"work"`, "rootcell provision", "pid", "--no-wait"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not mention %q", err, want)
		}
	}
}

func TestStaleAndBrokenLockFilesAreHarmless(t *testing.T) {
	for name, text := range map[string]string{
		"left by a killed process": `{"pid":1,"command":"rootcell up","since":"2026-01-01T00:00:00Z"}`,
		"half written":             `{"pid":`,
		"empty":                    "",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, lockFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := acquire(t.Context(), dir, LockOptions{NoWait: true})
			if err != nil {
				t.Fatal(err)
			}
			l.Release()
		})
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	dir := t.TempDir()
	first, err := acquire(t.Context(), dir, LockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Release()
	ctx, cancel := context.WithCancel(t.Context())
	_, err = acquire(ctx, dir, LockOptions{Waiting: func(Holder) { cancel() }})
	if err != context.Canceled {
		t.Errorf("err = %v, want context.Canceled", err)
	}
}
