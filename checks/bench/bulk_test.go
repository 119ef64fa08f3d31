//go:build linux

package bench

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// transfer is one kind of bulk.
type transfer struct {
	name string
	args func(b *bench, c *candidate, file string) []string
}

var transfers = []transfer{
	{"h1 down", func(_ *bench, c *candidate, file string) []string {
		return []string{"--http1.1", "-o", "/dev/null", "https://" + c.web() + "/" + file}
	}},
	{"h2 down", func(_ *bench, c *candidate, file string) []string {
		return []string{"--http2", "-o", "/dev/null", "https://" + c.web() + "/" + file}
	}},
	{"h1 up", func(b *bench, c *candidate, file string) []string {
		return []string{"--http1.1", "-o", "/dev/null", "-T", b.path("files/" + file), "https://" + c.origin() + "/upload"}
	}},
	{"h2 up", func(b *bench, c *candidate, file string) []string {
		return []string{"--http2", "-o", "/dev/null", "-T", b.path("files/" + file), "https://" + c.origin() + "/upload"}
	}},
}

// file is what the candidate transfers; mitmproxy holds bodies in memory and gets a smaller one.
func (b *bench) file(c *candidate) (name string, mib int) {
	if c.name == mitm {
		return "bulk-mitm", b.mitmMiB
	}
	return "bulk", b.sizeMiB
}

var curlSummary = regexp.MustCompile(`status=(\d+) time=([0-9.]+)`)

// move makes one transfer and returns its rate in MiB/s.
func (b *bench) move(t *testing.T, c *candidate, kind transfer) float64 {
	file, mib := b.file(c)
	out := b.agent(t, "curl", append([]string{"-sS", "-k", "-w", "status=%{http_code} time=%{time_total}"}, kind.args(b, c, file)...)...)
	m := curlSummary.FindStringSubmatch(out)
	if m == nil || m[1] != "200" {
		t.Fatalf("%s of %s: %s", kind.name, c.name, out)
	}
	seconds, err := strconv.ParseFloat(m[2], 64)
	if err != nil {
		t.Fatal(err)
	}
	return float64(mib) / seconds
}

func (b *bench) transfers(t *testing.T) Section {
	rates := map[string]map[string][]float64{}
	var columns []string
	var values []map[string][]float64
	for _, kind := range transfers {
		rate, cpu := map[string][]float64{}, map[string][]float64{}
		for range b.rounds {
			for _, c := range b.running() {
				before := c.cpu(t)
				rate[c.name] = append(rate[c.name], b.move(t, c, kind))
				if _, mib := b.file(c); c.pid != 0 {
					cpu[c.name] = append(cpu[c.name], float64((c.cpu(t)-before).Microseconds())/1000/float64(mib))
				}
			}
		}
		rates[kind.name] = rate
		columns = append(columns, kind.name+" MiB/s", "CPU ms/MiB")
		values = append(values, rate, cpu)
	}
	return Section{
		Title: "Large bodies",
		About: fmt.Sprintf("curl, %d MiB (%d MiB through mitmproxy); down from nginx, up to a Go server.", b.sizeMiB, b.mitmMiB),
		Figures: []Figure{
			b.versus(Figure{Name: "HTTP/1.1 download against the relay", Bar: 0.85, Aim: 0.95}, relay, rates["h1 down"], Ratio),
			b.versus(Figure{Name: "HTTP/2 download against the relay", Bar: 0.5, Aim: 0.9}, relay, rates["h2 down"], Ratio),
			b.versus(Figure{Name: "HTTP/1.1 upload against the relay"}, relay, rates["h1 up"], Ratio),
			b.versus(Figure{Name: "HTTP/2 upload against the relay"}, relay, rates["h2 up"], Ratio),
		},
		Columns: columns, Rows: b.table(values),
	}
}

func (b *bench) tunnels(t *testing.T) Section {
	rate, cpu := map[string][]float64{}, map[string][]float64{}
	for range b.rounds {
		for _, c := range b.running() {
			proxy, target := "192.168.77.10:8080", c.origin()+":22"
			switch c.name {
			case mitm:
				proxy, target = mitmConnect, c.originAddr()+":22"
			case ours:
			default:
				continue
			}
			_, mib := b.file(c)
			before := c.cpu(t)
			took := b.tunnel(t, proxy, target, int64(mib)<<20)
			rate[c.name] = append(rate[c.name], float64(mib)/took.Seconds())
			// What is spent less than once in a tick of the clock counts as one.
			used := max(c.cpu(t)-before, 10*time.Millisecond)
			cpu[c.name] = append(cpu[c.name], float64(used.Microseconds())/1000/float64(mib))
		}
	}
	return Section{
		Title: "SSH through CONNECT", About: "One tunnel with SSH's opening and then bulk towards the agent.",
		Figures: []Figure{
			b.versus(Figure{Name: "bulk rate against mitmproxy", Bar: 5, Aim: 6.5}, mitm, rate, Ratio),
			b.versus(Figure{Name: "bulk CPU, times less than mitmproxy", Bar: 8, Aim: 13, Gate: true}, mitm, cpu, inverse),
		},
		Columns: []string{"MiB/s", "CPU ms/MiB"}, Rows: b.table([]map[string][]float64{rate, cpu}),
	}
}

// heldConnections is how many idle connections memory is measured with.
const heldConnections = 1000

func (b *bench) memory(t *testing.T) Section {
	idle, growth, held := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	for _, c := range b.running() {
		if c.pid == 0 {
			continue
		}
		idle[c.name] = append(idle[c.name], c.rss(t, "VmRSS"))
		b.holdSome(t, c, 20)() // warm: the first connection costs what is loaded once
		before := c.rss(t, "VmRSS")
		if c.name != mitm || b.mitmMiB > 0 {
			resetPeak(t, c)
			for _, kind := range transfers {
				b.move(t, c, kind)
			}
			growth[c.name] = append(growth[c.name], c.rss(t, "VmHWM")-before)
		}
		before = c.rss(t, "VmRSS")
		release := b.holdSome(t, c, heldConnections)
		held[c.name] = append(held[c.name], (c.rss(t, "VmRSS")-before)*1024/heldConnections)
		release()
	}
	return Section{
		Title: "Memory",
		About: fmt.Sprintf("Resident set: after the start; at the peak of %d MiB up and down over HTTP/1.1 and HTTP/2, beyond what it was before; "+
			"and for each of %d held connections that made a request.", b.sizeMiB, heldConnections),
		Figures: []Figure{
			{Name: "idle", Unit: "MiB", Value: Median(idle[ours]), Bar: 15, Aim: 12, AtMost: true},
			{Name: "growth over any body", Unit: "MiB", Value: Median(growth[ours]), Bar: 32, Aim: 16, AtMost: true},
			{Name: "per held idle connection", Unit: "KiB", Value: Median(held[ours]), Bar: 60, Aim: 45, AtMost: true},
		},
		Columns: []string{"idle MiB", "growth MiB", "KiB per connection"}, Rows: b.table([]map[string][]float64{idle, growth, held}),
	}
}

// resetPeak makes the kernel forget the process's peak (proc(5), clear_refs).
func resetPeak(t *testing.T, c *candidate) {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", c.pid), []byte("5"), 0o200); err != nil {
		t.Fatal(err)
	}
}
