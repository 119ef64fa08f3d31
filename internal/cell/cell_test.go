package cell_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/cell/celltest"
	"github.com/rootcell-ai/rootcell/internal/config"
	"github.com/rootcell-ai/rootcell/internal/provider"
)

// newHost is a host with machines in memory.
func newHost(t *testing.T) (*cell.Host, *celltest.World) {
	t.Helper()
	dir := t.TempDir()
	world, err := celltest.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &cell.Host{
		Root:      cell.Root{Dir: filepath.Join(dir, "instances")},
		Providers: map[string]func(config.Config) provider.Provider{"qemu": func(config.Config) provider.Provider { return world.Provider }},
		Images:    celltest.Images{},
		Environ:   []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "ROOTCELL_PROVIDER=qemu"},
		GOOS:      "linux", GOARCH: runtime.GOARCH, Version: "test", Command: "rootcell test",
		Report: func(string) {}, Tell: func(string) {}, Warn: func(string) {}, Ask: func(string) bool { return false },
		Logger: slog.New(slog.DiscardHandler),
	}, world
}

func mustCell(t *testing.T, h *cell.Host, name string) *cell.Cell {
	t.Helper()
	c, err := h.Cell(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustUp(t *testing.T, c *cell.Cell) {
	t.Helper()
	if err := c.Up(t.Context(), cell.UpOptions{}); err != nil {
		t.Fatal(err)
	}
}

// run runs a shell line in the agent and returns what it printed.
func run(t *testing.T, c *cell.Cell, line string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	code, err := c.Enter(t.Context(), cell.Session{Argv: []string{"sh", "-c", line}, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Ready: func() {}})
	if err != nil || code != 0 {
		t.Fatalf("%q: status %d, err %v, stderr %q", line, code, err, errOut.String())
	}
	return out.String()
}

func writeList(t *testing.T, c *cell.Cell, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.Dir, "proxy", name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSubnetsAreGivenOutOnce(t *testing.T) {
	h, _ := newHost(t)
	var wg sync.WaitGroup
	for i := range 8 {
		c := mustCell(t, h, fmt.Sprintf("i%d", i))
		wg.Go(func() {
			if err := c.Init(t.Context(), "qemu"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	subnets := map[string]string{}
	for i := range 8 {
		c := mustCell(t, h, fmt.Sprintf("i%d", i))
		s, err := c.State()
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := subnets[s.Subnet.String()]; taken {
			t.Errorf("%s and %s both have %v", other, c.Name, s.Subnet)
		}
		subnets[s.Subnet.String()] = c.Name
	}
}

func TestEnterPushesChangedLists(t *testing.T) {
	h, world := newHost(t)
	c := mustCell(t, h, "default")
	mustUp(t, c)
	if world.Pushes("default") != 0 {
		t.Errorf("a fresh firewall was pushed what it booted with")
	}
	writeList(t, c, "allowed-ssh.txt", "git.example.org\n")
	// The command in the agent must find the new list in force already.
	run(t, c, "true")
	if got := world.Lists("default")["allowed-ssh.txt"]; got != "git.example.org\n" {
		t.Errorf("in force: %q", got)
	}
	run(t, c, "true")
	if n := world.Pushes("default"); n != 1 {
		t.Errorf("%d pushes, want 1", n)
	}
}

func TestConcurrentPushesEndWithTheNewestLists(t *testing.T) {
	h, world := newHost(t)
	c := mustCell(t, h, "default")
	mustUp(t, c)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if _, err := c.Allow(t.Context(), cell.AllowOptions{Hosts: []string{fmt.Sprintf("h%d.example.org", i)}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	onDisk, err := os.ReadFile(filepath.Join(c.Dir, "proxy", "allowed-https.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if got := world.Lists("default")["allowed-https.txt"]; got != string(onDisk) {
		t.Errorf("in force is not what is on disk:\n%s\n%s", got, onDisk)
	}
	for i := range 6 {
		if !strings.Contains(string(onDisk), fmt.Sprintf("h%d.example.org\n", i)) {
			t.Errorf("h%d was lost", i)
		}
	}
}

func TestFailedProvisioningIsRepeated(t *testing.T) {
	h, world := newHost(t)
	c := mustCell(t, h, "default")
	// A file where a directory must be makes the step fail.
	if err := os.WriteFile(filepath.Join(world.Home, ".ssh"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := c.Up(t.Context(), cell.UpOptions{})
	if err == nil || !strings.Contains(err.Error(), "step ssh-key failed") || !strings.Contains(err.Error(), "rootcell provision") {
		t.Fatalf("up: %v", err)
	}
	s, err := c.State()
	if err != nil || s.Provisioned != "" || s.LastError == nil {
		t.Errorf("state after a failure: %+v, %v", s, err)
	}
	if err := os.Remove(filepath.Join(world.Home, ".ssh")); err != nil {
		t.Fatal(err)
	}
	run(t, c, "test -e ~/.ssh/id_rsa.pub")
	if s, err := c.State(); err != nil || s.Provisioned == "" || s.LastError != nil {
		t.Errorf("state after the repetition: %+v, %v", s, err)
	}
}

func TestKilledResetProvisionsAgain(t *testing.T) {
	h, world := newHost(t)
	c := mustCell(t, h, "default")
	mustUp(t, c)
	// The provider fails in the middle, as if rootcell had been killed there.
	world.Provider.FailNext("ResetAgent", errors.New("killed"))
	if err := c.Reset(t.Context()); err == nil {
		t.Fatal("reset did not fail")
	}
	if s, err := c.State(); err != nil || s.Provisioned != "" {
		t.Errorf("the agent counts as provisioned: %+v, %v", s, err)
	}
	reported := false
	h.Report = func(text string) { reported = reported || text == "provisioning the agent" }
	run(t, c, "true")
	if !reported {
		t.Error("the agent was not provisioned again")
	}
}

func TestFailedApplyIsContinued(t *testing.T) {
	h, world := newHost(t)
	c := mustCell(t, h, "default")
	world.Provider.FailNext("Apply", errors.New("no room"))
	if err := c.Up(t.Context(), cell.UpOptions{}); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Fatalf("up: %v", err)
	}
	// What is there is known, so that it can be removed and started.
	if s, err := c.State(); err != nil || s.Provider != "qemu" {
		t.Errorf("state: %+v, %v", s, err)
	}
	if err := c.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	mustUp(t, c)
}

func TestVerifyNeedsEveryResult(t *testing.T) {
	h, world := newHost(t)
	c := mustCell(t, h, "default")
	mustUp(t, c)
	for name, results := range map[string]string{
		"no results":  "",
		"not JSON":    "hello\n",
		"half a line": `{"name":"root","ok":true`,
	} {
		if err := os.WriteFile(filepath.Join(world.Home, "probe-results"), []byte(results), 0o600); err != nil {
			t.Fatal(err)
		}
		if held, err := c.Verify(t.Context(), func(cell.Check) {}); held || err == nil {
			t.Errorf("%s: held %v, err %v", name, held, err)
		}
	}
}

func TestWrongHostKeyIsRefused(t *testing.T) {
	h, _ := newHost(t)
	c := mustCell(t, h, "default")
	mustUp(t, c)
	// Another key than the machine has: what a machine in between would show.
	path := filepath.Join(c.Dir, "ssh", "agent_host_ed25519")
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	_, err := c.Enter(t.Context(), cell.Session{Argv: []string{"true"}, Stdin: strings.NewReader(""), Ready: func() {}})
	if err == nil || !strings.Contains(err.Error(), "host key is not the pinned one") {
		t.Errorf("err %v", err)
	}
}

func TestOpenPermissionsAreClosed(t *testing.T) {
	h, _ := newHost(t)
	c := mustCell(t, h, "default")
	mustUp(t, c)
	open := []string{c.Dir, filepath.Join(c.Dir, "pki"), filepath.Join(c.Dir, "pki", "ca.key"), filepath.Join(c.Dir, "ssh", "control_ed25519")}
	for _, path := range open {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run(t, c, "true")
	for _, path := range open {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestInterruptedUpLeavesAConsistentState(t *testing.T) {
	h, _ := newHost(t)
	c := mustCell(t, h, "default")
	ctx, cancel := context.WithCancel(t.Context())
	h.Report = func(text string) {
		if strings.HasPrefix(text, "starting") {
			cancel()
		}
	}
	if err := c.Up(ctx, cell.UpOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("up: %v", err)
	}
	h.Report = func(string) {}
	if s, err := c.State(); err != nil || s.LastError != nil {
		t.Errorf("state: %+v, %v", s, err)
	}
	mustUp(t, c)
}

func TestTheAgentGetsNoSecretOfTheHost(t *testing.T) {
	h, world := newHost(t)
	c := mustCell(t, h, "default")
	mustUp(t, c)
	spec, ok := world.Provider.Applied(provider.CellID{Instance: "default", Dir: filepath.Join(c.Dir, "v")})
	if !ok {
		t.Fatal("nothing was applied")
	}
	// The line of each file that has the private part in it.
	for secret, line := range map[string]int{"pki/ca.key": 1, "ssh/control_ed25519": 4, "ssh/firewall_host_ed25519": 4} {
		text, err := os.ReadFile(filepath.Join(c.Dir, secret))
		if err != nil {
			t.Fatal(err)
		}
		private := strings.Split(string(text), "\n")[line]
		if len(private) < 40 || bytes.Contains(spec.Agent.Config, []byte(private)) {
			t.Errorf("%s is in the agent's configuration", secret)
		}
	}
}
