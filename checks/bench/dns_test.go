//go:build linux

package bench

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

const dnsmasq = "dnsmasq"

// onceNames is how many names the uncached load asks for, each once a round. They are listed one by one: the firewall spends a
// budget on names below a wildcard.
const onceNames = 20_000

// dnsList is the firewall's list with n names of the uncached load.
func dnsList(n int) string {
	var b strings.Builder
	for i := range 20 {
		fmt.Fprintf(&b, "cached-%d.bench.test\n", i)
	}
	for i := range n {
		fmt.Fprintf(&b, "once-%d.bench.test\n", i)
	}
	return b.String()
}

var (
	dnsRate = regexp.MustCompile(`Queries per second:\s+([0-9.]+)`)
	dnsDone = regexp.MustCompile(`Queries completed:\s+(\d+)`)
	dnsLost = regexp.MustCompile(`Queries lost:\s+(\d+)`)
)

func (b *bench) dns(t *testing.T) Section {
	section := Section{
		Title:   "DNS",
		About:   fmt.Sprintf("dnsperf, 8 clients: 20 names kept, %d names that are not, 20 names that are not allowed.", onceNames),
		Columns: []string{"cached/s", "CPU us", "uncached/s", "CPU us", "denied/s", "CPU us"},
	}
	if !have("dnsperf") || !have(dnsmasq) {
		section.Figures = []Figure{Missing(Figure{Name: "against dnsmasq", Bar: 1}, "dnsperf or dnsmasq is not installed (checks/packages.sh bench)")}
		return section
	}
	conf := b.write(t, "dnsmasq.conf", fmt.Sprintf("no-daemon\nno-resolv\nno-hosts\nuser=root\nbind-interfaces\nlisten-address=%s\ncache-size=10000\n"+
		"dns-forward-max=1000\nserver=%s\nlocal=/denied.test/\n", netlab.PeerAddr, netlab.PeerInternetAddr))
	peer := &candidate{name: dnsmasq, pid: b.start(t, b.peer, dnsmasq, "--conf-file="+conf)}
	b.daemon.WritePolicy(t, dnsList(onceNames), "*.bench.test\n", b.candidate(ours).origin()+"\n")
	b.daemon.Ctl(t, nil, "reload")

	queries := map[string]string{"cached": queryFile(20, "cached-%d.bench.test"), "uncached": queryFile(onceNames, "once-%d.bench.test"),
		"denied": queryFile(20, "name-%d.denied.test")}
	for kind, text := range queries {
		b.write(t, kind+".txt", text)
	}
	servers := map[string]string{ours: netlab.FirewallAddr, dnsmasq: netlab.PeerAddr}
	netlab.Await(t, 10*time.Second, "dnsmasq", func() bool {
		return b.lab.Agent.Command(t.Context(), "dnsperf", "-s", netlab.PeerAddr, "-d", b.path("cached.txt"), "-n", "1", "-t", "1").Run() == nil
	})
	rates, cpu := map[string]map[string][]float64{}, map[string]map[string][]float64{}
	for kind := range queries {
		rates[kind], cpu[kind] = map[string][]float64{}, map[string][]float64{}
	}
	for range b.rounds {
		for _, kind := range []string{"uncached", "cached", "denied"} {
			for _, c := range []*candidate{peer, b.candidate(ours)} {
				server := c.name
				args := []string{"-s", servers[server], "-d", b.path(kind + ".txt"), "-c", "8", "-q", "64", "-t", "3"}
				if kind == "uncached" {
					args = append(args, "-n", "1")
				} else {
					args = append(args, "-l", fmt.Sprint(int(b.slice.Seconds())))
				}
				before := c.cpu(t)
				out := b.agent(t, "dnsperf", args...)
				used := c.cpu(t) - before
				cpu[kind][server] = append(cpu[kind][server], float64(used.Microseconds())/number(t, dnsDone, out, 1))
				if lost := number(t, dnsLost, out, 1); lost > 0.01*onceNames {
					t.Errorf("%s lost %v queries (%s)", server, lost, kind)
				}
				rates[kind][server] = append(rates[kind][server], number(t, dnsRate, out, 1))
			}
		}
	}
	for _, f := range []struct {
		kind     string
		bar, aim float64
	}{{"cached", 0.9, 1.15}, {"uncached", 1, 2}, {"denied", 0.5, 0.8}} {
		section.Figures = append(section.Figures, Figure{
			Name: f.kind + " queries/s against dnsmasq", Unit: "x", Bar: f.bar, Aim: f.aim, Value: Ratio(rates[f.kind][ours], rates[f.kind][dnsmasq]),
		})
	}
	for _, server := range []string{dnsmasq, ours} {
		row := []string{server}
		for _, kind := range []string{"cached", "uncached", "denied"} {
			row = append(row, Number(Median(rates[kind][server])), Number(Median(cpu[kind][server])))
		}
		section.Rows = append(section.Rows, row)
	}
	return section
}

func queryFile(n int, pattern string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, pattern+" A\n", i)
	}
	return b.String()
}
