package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// guestKernel finds a kernel of the host with its modules, below
// $ROOTCELL_TEST_ROOT (default /), as the package linux-image-cloud-amd64 lays
// them out.
func guestKernel(t *testing.T) (kernel, modules string) {
	t.Helper()
	needHere(t)
	needTools(t)
	root := os.Getenv("ROOTCELL_TEST_ROOT")
	if root == "" {
		root = "/"
	}
	kernels, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(kernels)
	for _, kernel := range kernels {
		for _, lib := range []string{"lib/modules", "usr/lib/modules"} {
			modules := filepath.Join(root, lib, strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-"))
			if f, err := os.Open(kernel); err == nil {
				f.Close()
				if _, err := os.Stat(filepath.Join(modules, "kernel")); err == nil {
					return kernel, modules
				}
			}
		}
	}
	t.Skip("no readable kernel with modules to boot; `apt-get install linux-image-cloud-amd64` gives one, also unpacked below $ROOTCELL_TEST_ROOT")
	return "", ""
}

// guestModules are the modules that the test guests load, in this order, where
// the kernel has them as modules and not built in.
var guestModules = []string{
	"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
	"failover", "net_failover", "virtio_net", "qemu_fw_cfg", "virtio_balloon",
}

// buildInitrd makes the initrd of the test guests.
func buildInitrd(t *testing.T, modules, path string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "init")
	build := exec.Command("go", "build", "-o", program, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the test guest: %v\n%s", err, out)
	}
	var archive bytes.Buffer
	w := cpio.NewWriter(&archive)
	add := func(name string, mode cpio.FileMode, data []byte) {
		t.Helper()
		if err := w.WriteHeader(&cpio.Header{Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	add("init", cpio.TypeReg|0o755, data)
	add("modules", cpio.TypeDir|0o755, nil)
	err = filepath.Walk(modules, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		name, ext, _ := strings.Cut(info.Name(), ".")
		if i := slices.Index(guestModules, strings.ReplaceAll(name, "-", "_")); i >= 0 {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			add(fmt.Sprintf("modules/%02d.%s", i, ext), cpio.TypeReg|0o644, data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// heard asks the firewall which token it heard last over the link.
func heard(t *testing.T, p *Provider, id provider.CellID) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	conn, err := p.DialFirewall(ctx, id)
	if err != nil {
		for _, role := range roles {
			console, _ := p.Console(context.WithoutCancel(ctx), id, role)
			t.Logf("console of the %s: %s", role, console[max(0, len(console)-2000):])
		}
		t.Fatalf("DialFirewall: %v", err)
	}
	defer conn.Close()
	line, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(strings.TrimSpace(string(line)), "SSH-2.0-")
}

// TestLinuxGuests boots two real kernels and holds the link, the way in and the
// agent's reboots to what they are for.
func TestLinuxGuests(t *testing.T) {
	kernel, modules := guestKernel(t)
	p, spec := cell(t, Options{})
	spec.Accel = "auto"
	initrd := filepath.Join(filepath.Dir(spec.ID.Dir), "guest.initrd")
	buildInitrd(t, modules, initrd)
	mac := func(role provider.Role, nic provider.NIC) string {
		return provider.MAC(spec.ID.Instance, role, nic).String()
	}
	config := func(role provider.Role, reboot bool) []byte {
		data, err := json.Marshal(map[string]any{
			"Role": role, "Reboot": reboot, "Cell": mac(role, provider.NICCell), "Uplink": mac(role, provider.NICUplink),
		})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for role, m := range map[provider.Role]*provider.Machine{provider.RoleAgent: &spec.Agent, provider.RoleFirewall: &spec.Firewall} {
		m.Kernel, m.Initrd, m.MemoryBytes, m.Config = kernel, initrd, 128<<20, config(role, false)
	}
	// token waits for another token than the last one.
	last := "nothing"
	token := func(what string) {
		t.Helper()
		before, began := last, time.Now()
		eventually(t, what, func() bool {
			last = heard(t, p, spec.ID)
			return last != before && last != "nothing"
		})
		t.Logf("%s: %s after %s", what, last, time.Since(began).Round(10*time.Millisecond))
	}

	mustApply(t, p, spec)
	t.Logf("acceleration: %+v", mustStatus(t, p, spec.ID))
	token("the firewall hears the agent")
	first := last

	killProcess(t, spec.ID, provider.RoleFirewall)
	mustApply(t, p, spec)
	last = "nothing"
	token("a firewall started alone hears the agent that went on")
	if last != first {
		t.Errorf("the agent was restarted: %q, then %q", first, last)
	}

	killProcess(t, spec.ID, provider.RoleAgent)
	boot := mustStatus(t, p, spec.ID).Firewall.BootID
	mustApply(t, p, spec)
	token("the firewall that went on hears an agent started alone")
	if got := mustStatus(t, p, spec.ID).Firewall.BootID; got != boot {
		t.Error("the firewall was restarted")
	}

	spec.Agent.Config = config(provider.RoleAgent, true)
	mustApply(t, p, spec)
	boot = mustStatus(t, p, spec.ID).Agent.BootID
	token("an agent that is about to reboot is heard")
	token("the agent is heard again after its reboot")
	if got := mustStatus(t, p, spec.ID).Agent; got.BootID != boot || got.State != provider.StateRunning {
		t.Errorf("the agent after its reboot: %+v", got)
	}
}
