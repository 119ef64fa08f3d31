package provider_test

import (
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

func TestMACIsLocalAndStable(t *testing.T) {
	seen := map[string]string{}
	for _, instance := range []string{"default", "work", "a"} {
		for _, role := range []provider.Role{provider.RoleAgent, provider.RoleFirewall} {
			for _, nic := range []provider.NIC{provider.NICCell, provider.NICUplink} {
				mac := provider.MAC(instance, role, nic)
				if len(mac) != 6 || mac[0]&1 != 0 || mac[0]&2 == 0 {
					t.Errorf("MAC(%q, %s, %s) = %s: not a local unicast address", instance, role, nic, mac)
				}
				who := instance + "/" + string(role) + "/" + string(nic)
				if other, dup := seen[mac.String()]; dup {
					t.Errorf("%s and %s share %s", other, who, mac)
				}
				seen[mac.String()] = who
			}
		}
	}
	// Guests that were configured by an older rootcell keep their address.
	if got, want := provider.MAC("default", provider.RoleAgent, provider.NICCell).String(), goldenMAC; got != want {
		t.Errorf("MAC of the default agent = %s, want %s", got, want)
	}
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	good := provider.Spec{
		ID:       provider.CellID{Instance: "default", Dir: "/v"},
		Agent:    provider.Machine{Name: "agent", CPUs: 1, MemoryBytes: 1 << 30, DiskBytes: 1 << 30},
		Firewall: provider.Machine{Name: "firewall", CPUs: 1, MemoryBytes: 128 << 20, DiskBytes: 8 << 20},
	}
	if err := good.Validate(); err != nil {
		t.Fatalf("a good spec: %v", err)
	}
	tests := map[string]struct {
		spoil func(*provider.Spec)
		want  string
	}{
		"no instance":         {func(s *provider.Spec) { s.ID.Instance = "" }, "no instance name"},
		"a relative dir":      {func(s *provider.Spec) { s.ID.Dir = "v" }, "not an absolute path"},
		"an unknown arch":     {func(s *provider.Spec) { s.Arch = "mips" }, `"mips"`},
		"an unknown accel":    {func(s *provider.Spec) { s.Accel = "xen" }, `"xen"`},
		"no CPUs":             {func(s *provider.Spec) { s.Agent.CPUs = 0 }, "at least 1"},
		"too little memory":   {func(s *provider.Spec) { s.Firewall.MemoryBytes = 1 << 20 }, "64 MiB"},
		"no disk":             {func(s *provider.Spec) { s.Firewall.DiskBytes = 0 }, "1 MiB"},
		"a nameless firewall": {func(s *provider.Spec) { s.Firewall.Name = "" }, "no name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := good
			tt.spoil(&s)
			err := s.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate() = %v, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestConfigHashFollowsTheConfigUnlessGiven(t *testing.T) {
	a, b := provider.Machine{Config: []byte("a")}, provider.Machine{Config: []byte("b")}
	if a.EffectiveConfigHash() == b.EffectiveConfigHash() {
		t.Error("two configs share a hash")
	}
	a.ConfigHash, b.ConfigHash = "same", "same"
	if a.EffectiveConfigHash() != b.EffectiveConfigHash() {
		t.Error("a given hash is not used")
	}
}

const goldenMAC = "0a:4d:f3:78:99:f5"
