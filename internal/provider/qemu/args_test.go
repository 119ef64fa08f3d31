package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func testLaunch(role provider.Role, accel, arch string) launch {
	return launch{
		Name: string(role) + "-work", Arch: arch, Accel: accel, Binary: "qemu", CPUs: 2, MemoryBytes: 1 << 30, DiskBytes: 8 << 30,
		Kernel: "/images/a,b/kernel", Initrd: "/images/a,b/initrd", Cmdline: "debug", ConfigHash: "hash",
	}
}

func testArguments(role provider.Role, accel, arch string) []string {
	return arguments(role, "work", "11111111-2222-4333-8444-555555555555", testLaunch(role, accel, arch), 40022)
}

func TestArgumentsAreAsReviewed(t *testing.T) {
	for name, tt := range map[string]struct {
		role        provider.Role
		accel, arch string
	}{
		"agent-tcg-amd64":    {provider.RoleAgent, "tcg", "amd64"},
		"firewall-kvm-amd64": {provider.RoleFirewall, "kvm", "amd64"},
		"agent-kvm-arm64":    {provider.RoleAgent, "kvm", "arm64"},
	} {
		t.Run(name, func(t *testing.T) {
			// The one part that differs between systems.
			args := slices.DeleteFunc(testArguments(tt.role, tt.accel, tt.arch), func(a string) bool {
				return a == "-sandbox" || strings.HasPrefix(a, "on,obsolete=")
			})
			got := strings.Join(args, "\n") + "\n"
			golden := filepath.Join("testdata", name+".args")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("the arguments differ from %s (rewrite it with -update):\n%s", golden, diff)
			}
		})
	}
}

// values lists the values of an option.
func values(args []string, option string) []string {
	var found []string
	for i, a := range args {
		if a == option && i+1 < len(args) {
			found = append(found, args[i+1])
		}
	}
	return found
}

func TestAgentHasOnlyTheLink(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		args := testArguments(provider.RoleAgent, "kvm", arch)
		want := []string{"dgram,id=cell,local.type=unix,local.path=agent.net,remote.type=unix,remote.path=firewall.net"}
		if diff := cmp.Diff(want, values(args, "-netdev")); diff != "" {
			t.Errorf("network back ends of the agent (%s):\n%s", arch, diff)
		}
		var devices []string
		for _, d := range values(args, "-device") {
			kind, _, _ := strings.Cut(d, ",")
			devices = append(devices, kind)
		}
		// Every device is named here: one that is added has to be thought about.
		if diff := cmp.Diff([]string{"virtio-rng-pci", "virtio-balloon-pci", "virtio-blk-pci", "virtio-net-pci"}, devices); diff != "" {
			t.Errorf("devices of the agent (%s):\n%s", arch, diff)
		}
		if !slices.Contains(args, "-nodefaults") {
			t.Error("without -nodefaults QEMU adds a user-mode network device by itself")
		}
		all := strings.Join(args, " ")
		for _, word := range []string{"user,", "hostfwd", "guestfwd", "tap", "bridge", "vsock", "9p", "virtfs", "virtiofs", "fsdev", "smb=", "tftp", "-net ", "-nic"} {
			if strings.Contains(all, word) {
				t.Errorf("the agent's arguments (%s) hold %q: %s", arch, word, all)
			}
		}
	}
}

func TestFirewallListensOnLoopbackOnly(t *testing.T) {
	args := testArguments(provider.RoleFirewall, "kvm", "amd64")
	want := []string{
		"dgram,id=cell,local.type=unix,local.path=firewall.net,remote.type=unix,remote.path=agent.net",
		"user,id=uplink,ipv6=off,hostfwd=tcp:127.0.0.1:40022-:22",
	}
	if diff := cmp.Diff(want, values(args, "-netdev")); diff != "" {
		t.Errorf("network back ends of the firewall:\n%s", diff)
	}
}

func TestFirewallNeverReboots(t *testing.T) {
	if !slices.Contains(testArguments(provider.RoleFirewall, "tcg", "amd64"), "-no-reboot") {
		t.Error("the firewall's arguments lack -no-reboot")
	}
	if slices.Contains(testArguments(provider.RoleAgent, "tcg", "amd64"), "-no-reboot") {
		t.Error("the agent's arguments hold -no-reboot")
	}
}

func TestAgentConsoleTakesNoDisk(t *testing.T) {
	got := values(testArguments(provider.RoleAgent, "tcg", "amd64"), "-chardev")
	if diff := cmp.Diff([]string{"ringbuf,id=console,size=262144"}, got); diff != "" {
		t.Errorf("character devices of the agent:\n%s", diff)
	}
}

func TestSandboxIsOnWhereThereIsOne(t *testing.T) {
	for _, role := range roles {
		want := []string{"on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}
		if diff := cmp.Diff(want, values(testArguments(role, "tcg", "amd64"), "-sandbox")); diff != "" && onLinux {
			t.Errorf("sandbox of the %s:\n%s", role, diff)
		}
	}
}
