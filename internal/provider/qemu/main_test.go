package qemu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// The tests on running machines boot testdata/standin.bin, a kernel of some bytes
// in real QEMU processes; what real guests do is tested by internal/e2e.

// needTools skips a test that starts QEMU where it is not installed.
func needTools(t *testing.T) {
	t.Helper()
	for _, name := range []string{"qemu-system-x86_64", "qemu-img", "mke2fs"} {
		if _, err := findTool(name); err != nil {
			t.Skipf("no QEMU to test with: %v", err)
		}
	}
}

// shortDir is a directory whose socket paths fit everywhere, unlike t.TempDir's.
func shortDir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("", "rc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

// testSpec describes a cell of stand-in guests below root.
func testSpec(t *testing.T, root string) provider.Spec {
	t.Helper()
	kernel, err := os.ReadFile("testdata/standin.bin")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"kernel": kernel, "initrd": []byte("initrd"), "one.img": make([]byte, 1<<20), "two.img": make([]byte, 1<<20),
	} {
		if err := os.WriteFile(filepath.Join(root, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := provider.Machine{
		CPUs: 1, MemoryBytes: 64 << 20, DiskBytes: 8 << 20,
		Kernel: filepath.Join(root, "kernel"), Initrd: filepath.Join(root, "initrd"), Config: []byte("{}"),
	}
	s := provider.Spec{ID: provider.CellID{Instance: "test", Dir: filepath.Join(root, "v")}, Arch: "amd64", Accel: "tcg", Agent: m, Firewall: m}
	s.Agent.Name, s.Firewall.Name = "agent-test", "firewall-test"
	s.Agent.Image = filepath.Join(root, "one.img")
	return s
}

// cell is a provider with a cell of stand-in guests that ends with the test.
func cell(t *testing.T, opts Options) (*Provider, provider.Spec) {
	t.Helper()
	needTools(t)
	root := shortDir(t)
	spec := testSpec(t, root)
	if opts.CacheDir == "" {
		opts.CacheDir = filepath.Join(root, "cache")
	}
	if opts.Grace == 0 {
		opts.Grace = 50 * time.Millisecond // stand-ins do not answer the power button
	}
	p := New(opts)
	t.Cleanup(func() {
		if err := p.Destroy(context.Background(), spec.ID); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
	return p, spec
}

func mustApply(t *testing.T, p *Provider, spec provider.Spec) []string {
	t.Helper()
	var steps []string
	if err := p.Apply(t.Context(), spec, func(s provider.Step) { steps = append(steps, s.Text) }); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	return steps
}

func mustStatus(t *testing.T, p *Provider, id provider.CellID) provider.Status {
	t.Helper()
	st, err := p.Status(t.Context(), id)
	if err != nil {
		t.Fatalf("Status: %v", err)
	}
	return st
}

// killProcess ends a machine as the host's out-of-memory killer does.
func killProcess(t *testing.T, id provider.CellID, role provider.Role) {
	t.Helper()
	if err := dirOf(id).kill(context.Background(), role); err != nil {
		t.Fatalf("killing the %s: %v", role, err)
	}
}

// pidOf is the process of a machine, which must have one.
func pidOf(t *testing.T, id provider.CellID, role provider.Role) int {
	t.Helper()
	pid, err := dirOf(id).holder(role)
	if err != nil || pid == 0 {
		t.Fatalf("the %s has no process (%v)", role, err)
	}
	return pid
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !ok() {
		if pause(ctx, 20*time.Millisecond) != nil {
			t.Fatalf("waiting in vain: %s", what)
		}
	}
}

// listing describes the files of a directory tree, and the state by its content.
func listing(t *testing.T, root string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil
			}
			return err
		}
		fmt.Fprintf(&out, "%s %s\n", info.Mode(), path)
		if info.Name() == stateFile {
			data, err := os.ReadFile(path)
			fmt.Fprintf(&out, "%s\n", data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// rebuilt assembles a source of the repository, and skips where that cannot be
// done.
func rebuilt(t *testing.T, mode, source string) []byte {
	t.Helper()
	for _, name := range []string{"as", "objcopy"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no assembler: %v", err)
		}
	}
	d := t.TempDir()
	object, binary := filepath.Join(d, "o"), filepath.Join(d, "bin")
	if out, err := exec.Command("as", mode, "-o", object, source).CombinedOutput(); err != nil {
		t.Skipf("assembling for x86 is not possible here: %v: %s", err, out)
	}
	if out, err := exec.Command("objcopy", "-O", "binary", "-j", ".text", object, binary).CombinedOutput(); err != nil {
		t.Fatalf("objcopy: %v: %s", err, out)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
