package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/cell/celltest"
	"github.com/rootcell-ai/rootcell/internal/cli"
	"github.com/rootcell-ai/rootcell/internal/provider"
)

// asProgram makes the test binary behave as rootcell with machines in memory,
// for tests that need a process of its own.
const asProgram = "ROOTCELL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		os.Exit(m.Run())
	}
	o := options()
	world, err := celltest.New(os.Getenv("ROOTCELL_STATE_DIR") + "-world")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(70)
	}
	o.Images = celltest.Images{}
	o.Providers = map[string]func(cli.Machine) provider.Provider{
		"qemu": func(cli.Machine) provider.Provider { return world.Provider },
	}
	os.Exit(cli.Run(context.Background(), o))
}

// program is rootcell as a process, with its state below dir.
func program(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "ROOTCELL_STATE_DIR="+filepath.Join(dir, "instances"), "HOME="+dir)
	cmd.Dir = dir
	return cmd
}

func TestKilledUpIsContinued(t *testing.T) {
	dir := t.TempDir()
	// Kill at moments all over a run of up, which takes some 200 ms; whatever is
	// left, the next command must go on from there and lose nothing.
	var key []byte
	for i := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(250))*time.Millisecond)
		_ = program(ctx, dir, "up").Run()
		cancel()
		out, err := program(t.Context(), dir, "init", "qemu").CombinedOutput()
		if err != nil {
			t.Fatalf("after kill %d: %v\n%s", i, err, out)
		}
		now, err := os.ReadFile(filepath.Join(dir, "instances/default/pki/ca.key"))
		if err != nil || key != nil && !bytes.Equal(key, now) {
			t.Fatalf("after kill %d the CA changed or is gone: %v", i, err)
		}
		key = now
	}
	if out, err := program(t.Context(), dir, "--", "echo", "alive").Output(); err != nil || string(out) != "alive\n" {
		t.Fatalf("after all kills: %q, %v", out, err)
	}
	// Unfinished replacements are not taken for files of the instance.
	err := filepath.WalkDir(filepath.Join(dir, "instances"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSecondCommandWaitsOrFails(t *testing.T) {
	dir := t.TempDir()
	if out, err := program(t.Context(), dir, "init", "qemu").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// The lock of an instance is flock on this file, whoever holds it.
	held, err := os.OpenFile(filepath.Join(dir, "instances/default/lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := held.WriteString(`{"pid":4711,"command":"rootcell provision","since":"2026-11-22T10:00:00Z"}`); err != nil {
		t.Fatal(err)
	}
	flock(t, held)
	out, err := program(t.Context(), dir, "--no-wait", "up").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "`rootcell provision` (pid 4711") {
		t.Errorf("--no-wait: %v\n%s", err, out)
	}
	// Reading waits for nobody.
	if out, err := program(t.Context(), dir, "list").CombinedOutput(); err != nil {
		t.Errorf("list: %v\n%s", err, out)
	}
	waiting := program(t.Context(), dir, "init", "qemu")
	stderr, err := waiting.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 512)
	n, _ := stderr.Read(line)
	if !strings.Contains(string(line[:n]), "waiting for `rootcell provision`") {
		t.Errorf("the second command says %q", line[:n])
	}
	held.Close()
	if err := waiting.Wait(); err != nil {
		t.Errorf("the second command after the first: %v", err)
	}
}

func TestInterruptedCommandExits130(t *testing.T) {
	dir := t.TempDir()
	var stderr bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code := cli.Run(ctx, cli.Options{Args: []string{"up"}, Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &stderr,
		Environ: []string{"HOME=" + dir, "ROOTCELL_STATE_DIR=" + filepath.Join(dir, "instances")}, WorkDir: dir,
		Images: celltest.Images{}, Providers: map[string]func(cli.Machine) provider.Provider{
			"qemu": func(cli.Machine) provider.Provider { w, _ := celltest.New(dir); return w.Provider },
		}})
	if code != 130 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}

// TestCompletionIsQuick holds what a shell needs for completion to feel
// immediate, with slack for a busy machine.
func TestCompletionCreatesNothing(t *testing.T) {
	dir := t.TempDir()
	if out, err := program(t.Context(), dir, "__complete", "--", "st").Output(); err != nil || !strings.Contains(string(out), "status") {
		t.Fatalf("%q, %v", out, err)
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "instances")); len(entries) > 0 {
		t.Errorf("completion created %v", entries)
	}
}

func TestFullDiskLosesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	mount := filepath.Join(dir, "instances")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256k", "rootcell-test", mount).CombinedOutput(); err != nil {
		t.Skipf("mounting a tmpfs: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", mount).Run() })
	if out, err := program(t.Context(), dir, "init", "qemu").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	state, err := os.ReadFile(filepath.Join(mount, "default/state.json"))
	if err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(mount, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the file system is larger than it should be")
	}
	out, err := program(t.Context(), dir, "up").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no space left") || !strings.Contains(string(out), "free some space") {
		t.Errorf("on a full disk: %v\n%s", err, out)
	}
	if now, err := os.ReadFile(filepath.Join(mount, "default/state.json")); err != nil || !bytes.Equal(now, state) {
		t.Errorf("the state changed or is gone: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if out, err := program(t.Context(), dir, "up").CombinedOutput(); err != nil {
		t.Errorf("with space again: %v\n%s", err, out)
	}
}
