//go:build linux

// Package firewallprobe is the firewall guest's view of itself, read from the
// kernel: what it drops, whether it forwards, and who listens where.
package firewallprobe

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/guest/firewallinit"
	"github.com/rootcell-ai/rootcell/internal/probe"
)

const nftTimeout = 20 * time.Second

// Run reads the firewall's state.
func Run(ctx context.Context) (probe.Firewall, error) {
	report := probe.Firewall{Schema: probe.Schema, Programs: programs("/proc")}
	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		return report, fmt.Errorf("reading ip_forward: %w", err)
	}
	report.IPForward = strings.TrimSpace(string(forward)) != "0"
	chains, err := nft(ctx, "list", "chains")
	if err == nil {
		err = firewallinit.CheckChains(chains)
	}
	report.DropsByDefault = err == nil
	if err != nil {
		report.Ruleset = err.Error()
	}
	listing, err := nft(ctx, "list", "counters", "table", "inet", "rootcell")
	if err != nil {
		return report, err
	}
	if report.Counters, err = parseCounters(listing); err != nil {
		return report, err
	}
	if report.Listeners, err = listeners("/proc/net"); err != nil {
		return report, err
	}
	if state, err := firewallinit.LoadState(); err == nil {
		report.LogDisk = state.LogDisk
	}
	report.MemoryUsedBytes, err = memoryUsed("/proc/meminfo")
	return report, err
}

func nft(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, nftTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nft", append([]string{"-j"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running nft %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

func parseCounters(listing []byte) (map[string]uint64, error) {
	var parsed struct {
		Nftables []struct {
			Counter *struct {
				Name    string
				Packets uint64
			}
		}
	}
	if err := json.Unmarshal(listing, &parsed); err != nil {
		return nil, fmt.Errorf("reading nft's counters: %w", err)
	}
	counters := map[string]uint64{}
	for _, entry := range parsed.Nftables {
		if entry.Counter != nil {
			counters[entry.Counter.Name] = entry.Counter.Packets
		}
	}
	return counters, nil
}

// listeners reads the kernel's socket tables. IPv6 sockets are listed too: they
// would be a surprise.
func listeners(dir string) ([]probe.Listener, error) {
	var found []probe.Listener
	for _, table := range []struct{ file, network, state string }{
		{"tcp", "tcp", "0A"}, {"tcp6", "tcp", "0A"}, {"udp", "udp", "07"}, {"udp6", "udp", "07"},
	} {
		text, err := os.ReadFile(filepath.Join(dir, table.file))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading sockets: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != table.state {
				continue
			}
			address, err := parseSocketAddress(fields[1])
			if err != nil {
				return nil, fmt.Errorf("reading sockets: %w", err)
			}
			found = append(found, probe.Listener{Network: table.network, Address: address.String()})
		}
	}
	return found, nil
}

// parseSocketAddress reads the kernel's "0100007F:0016": 32-bit words of the
// address in host byte order, which is little-endian on both architectures.
func parseSocketAddress(text string) (netip.AddrPort, error) {
	host, port, ok := strings.Cut(text, ":")
	number, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || (len(host) != 8 && len(host) != 32) {
		return netip.AddrPort{}, fmt.Errorf("malformed address %q", text)
	}
	raw := make([]byte, len(host)/2)
	for i := range raw {
		b, err := strconv.ParseUint(host[2*i:2*i+2], 16, 8)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("malformed address %q", text)
		}
		raw[i/4*4+3-i%4] = byte(b)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(number)), nil
}

func memoryUsed(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("reading memory use: %w", err)
	}
	values := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
			values[strings.TrimSuffix(fields[0], ":")] = kib << 10
		}
	}
	return values["MemTotal"] - values["MemAvailable"], nil
}

// programs counts processes by the program's name. The command line is read,
// not the link to the program: that needs rights over the daemon.
func programs(proc string) map[string]int {
	counts := map[string]int{}
	files, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "cmdline"))
	if err != nil {
		return counts
	}
	for _, file := range files {
		// Processes end meanwhile, and kernel threads have no command line.
		text, err := os.ReadFile(file)
		if name, _, _ := bytes.Cut(text, []byte{0}); err == nil && len(name) > 0 {
			counts[filepath.Base(string(name))]++
		}
	}
	return counts
}
