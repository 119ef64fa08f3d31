//go:build linux

package netup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// parameters makes a directory like /proc/sys with every parameter of settings.
func parameters(t *testing.T, settings []Setting) string {
	t.Helper()
	dir := t.TempDir()
	for _, s := range settings {
		name := filepath.Join(dir, s.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("?"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFirewallSettings(t *testing.T) {
	settings := append(FirewallSettings(), InterfaceSettings("cell", "uplink")...)
	dir := parameters(t, settings)
	if err := Apply(dir, settings); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"net/ipv4/ip_forward": "0", "net/ipv4/tcp_fastopen": "0", "kernel/sysrq": "0"}
	for _, scope := range []string{"all", "default", "cell", "uplink"} {
		for name, value := range map[string]string{
			"rp_filter": "1", "accept_redirects": "0", "accept_source_route": "0", "route_localnet": "0", "arp_ignore": "2", "forwarding": "0", "proxy_arp": "0",
		} {
			want["net/ipv4/conf/"+scope+"/"+name] = value
		}
		want["net/ipv6/conf/"+scope+"/disable_ipv6"] = "1"
		want["net/ipv6/conf/"+scope+"/accept_ra"] = "0"
	}
	for name, value := range want {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != value {
			t.Errorf("%s is %q (%v), want %q", name, got, err, value)
		}
	}
}

func TestApply(t *testing.T) {
	settings := []Setting{{"net/ipv4/ip_forward", "0"}, {"net/ipv6/conf/all/disable_ipv6", "1"}}
	t.Run("passes over IPv6 where there is none", func(t *testing.T) {
		if err := Apply(parameters(t, settings[:1]), settings); err != nil {
			t.Error(err)
		}
	})
	t.Run("reports every other parameter that is missing", func(t *testing.T) {
		err := Apply(parameters(t, settings[1:]), settings)
		if err == nil || !strings.Contains(err.Error(), "ip_forward") {
			t.Errorf("Apply = %v", err)
		}
	})
}
