package cell

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func stateIn(subnet string) State {
	p := netip.MustParsePrefix(subnet)
	return State{SchemaVersion: stateSchema, Subnet: p, FirewallIP: withOctet(p.Addr(), firewallOctet), AgentIP: withOctet(p.Addr(), agentOctet)}
}

func TestAllocate(t *testing.T) {
	first, last := netip.MustParseAddr("192.168.100.0"), netip.MustParseAddr("192.168.102.0")
	addr := netip.MustParseAddr
	tests := map[string]struct {
		first, last     netip.Addr
		firewall, agent netip.Addr
		taken           map[string]State
		want            string // firewall and agent address
		wantErr         string
		wantCode        int
	}{
		"the first of an unused pool":               {first: first, last: last, want: "192.168.100.10 192.168.100.11"},
		"the first free one":                        {first: first, last: last, taken: map[string]State{"a": stateIn("192.168.100.0/24")}, want: "192.168.101.10 192.168.101.11"},
		"a gap left by a removed instance":          {first: first, last: last, taken: map[string]State{"a": stateIn("192.168.100.0/24"), "c": stateIn("192.168.102.0/24")}, want: "192.168.101.10 192.168.101.11"},
		"a pool of one":                             {first: first, last: first, want: "192.168.100.10 192.168.100.11"},
		"across an octet":                           {first: addr("10.0.255.0"), last: addr("10.1.0.0"), taken: map[string]State{"a": stateIn("10.0.255.0/24")}, want: "10.1.0.10 10.1.0.11"},
		"an exhausted pool":                         {first: first, last: first, taken: map[string]State{"a": stateIn("192.168.100.0/24")}, wantErr: "taken", wantCode: 1},
		"a reversed pool":                           {first: last, last: first, wantErr: "above", wantCode: 2},
		"a public pool":                             {first: addr("8.8.8.0"), last: addr("8.8.9.0"), wantErr: "private", wantCode: 2},
		"a pool that runs out of the private range": {first: addr("192.168.255.0"), last: addr("193.0.0.0"), taken: map[string]State{"a": stateIn("192.168.255.0/24")}, wantErr: "private", wantCode: 2},
		"a pool that is no network address":         {first: addr("192.168.100.5"), last: last, wantErr: "192.168.100.5", wantCode: 2},
		"a pinned pair":                             {first: first, last: last, firewall: addr("10.9.8.2"), agent: addr("10.9.8.3"), want: "10.9.8.2 10.9.8.3"},
		"a pinned firewall alone":                   {first: first, last: last, firewall: addr("10.9.8.2"), wantErr: "together", wantCode: 2},
		"a pinned pair in two networks":             {first: first, last: last, firewall: addr("10.9.8.2"), agent: addr("10.9.9.3"), wantErr: "share one private /24", wantCode: 2},
		"a pinned pair of one address":              {first: first, last: last, firewall: addr("10.9.8.2"), agent: addr("10.9.8.2"), wantErr: "share the address", wantCode: 2},
		"a pinned public pair":                      {first: first, last: last, firewall: addr("1.1.1.1"), agent: addr("1.1.1.2"), wantErr: "private", wantCode: 2},
		"a pinned pair of another instance":         {first: first, last: last, firewall: addr("192.168.100.2"), agent: addr("192.168.100.3"), taken: map[string]State{"work": stateIn("192.168.100.0/24")}, wantErr: `"work"`, wantCode: 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := allocate(tt.first, tt.last, tt.firewall, tt.agent, tt.taken)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) || ExitCode(err) != tt.wantCode {
					t.Fatalf("err = %v (exit %d), want one with %q (exit %d)", err, ExitCode(err), tt.wantErr, tt.wantCode)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s := fmt.Sprint(got.Firewall, " ", got.Agent); s != tt.want {
				t.Errorf("allocated %s, want %s", s, tt.want)
			}
		})
	}
}

func TestConflictNamesBothInstances(t *testing.T) {
	states := map[string]State{"work": stateIn("192.168.100.0/24"), "play": stateIn("192.168.100.0/24"), "other": stateIn("192.168.101.0/24")}
	for _, name := range []string{"work", "play"} {
		err := checkConflict(name, states)
		if err == nil || !strings.Contains(err.Error(), `"play" and "work"`) {
			t.Errorf("conflict of %s: %v", name, err)
		}
	}
	if err := checkConflict("other", states); err != nil {
		t.Error(err)
	}
}
