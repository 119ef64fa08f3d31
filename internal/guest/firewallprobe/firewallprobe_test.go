//go:build linux

package firewallprobe

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/probe"
)

func TestListeners(t *testing.T) {
	dir := t.TempDir()
	const header = "  sl  local_address rem_address   st tx_queue rx_queue\n"
	for name, text := range map[string]string{
		"tcp":  header + "   0: 0A64A8C0:0035 00000000:0000 0A 0:0\n   1: 0F02000A:0016 0202000A:8F2C 01 0:0\n   2: 0F02000A:0016 00000000:0000 0A 0:0\n",
		"udp":  header + "   0: 0A64A8C0:0035 00000000:0000 07 0:0\n",
		"tcp6": header + "   0: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0:0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := listeners(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []probe.Listener{
		{Network: "tcp", Address: "192.168.100.10:53"}, {Network: "tcp", Address: "10.0.2.15:22"},
		{Network: "tcp", Address: "[::1]:22"}, {Network: "udp", Address: "192.168.100.10:53"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "0A64A8C0", "0A64A8:0035", "0A64A8C0:10000", "0A64A8G0:0035"} {
		if _, err := parseSocketAddress(bad); err == nil {
			t.Errorf("parseSocketAddress(%q) accepted", bad)
		}
	}
}

func TestParseCounters(t *testing.T) {
	got, err := parseCounters([]byte(`{"nftables": [{"metainfo": {}}, {"counter": {"family": "inet", "name": "forwarded", "table": "rootcell", "packets": 3, "bytes": 180}}, {"counter": {"name": "agent_dns", "packets": 0}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]uint64{"forwarded": 3, "agent_dns": 0}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := parseCounters([]byte("nft: error")); err == nil {
		t.Error("text that is not JSON was accepted")
	}
}

func TestProgramsCountByName(t *testing.T) {
	dir := t.TempDir()
	for pid, text := range map[string]string{"1": "/init\x00", "7": "/usr/sbin/rootcell-firewall\x00serve\x00", "9": "/init\x00serve-ssh\x00", "2": ""} {
		if err := os.MkdirAll(filepath.Join(dir, pid), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, pid, "cmdline"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]int{"init": 2, "rootcell-firewall": 1}, programs(dir)); diff != "" {
		t.Error(diff)
	}
}

func TestMemoryUsed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "meminfo")
	if err := os.WriteFile(name, []byte("MemTotal: 200 kB\nMemFree: 10 kB\nMemAvailable: 150 kB\nHugePages_Total: 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := memoryUsed(name); err != nil || got != 50<<10 {
		t.Errorf("memoryUsed = %d, %v", got, err)
	}
}
