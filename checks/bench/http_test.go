//go:build linux

package bench

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"
)

var (
	wrkRequests   = regexp.MustCompile(`(\d+) requests in`)
	h2Requests    = regexp.MustCompile(`requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed`)
	unhappyAnswer = regexp.MustCompile(`Non-2xx|Socket errors`)
)

// load is what one candidate did in one round.
type load struct{ requests, seconds float64 }

// rate measures requests per second and processor time per request of every candidate.
func (b *bench) rate(t *testing.T, run func(*candidate) load) (perSecond, cpu map[string][]float64) {
	perSecond, cpu = map[string][]float64{}, map[string][]float64{}
	for range b.rounds {
		for _, c := range b.running() {
			before := c.cpu(t)
			l := run(c)
			if l.requests == 0 {
				t.Fatalf("%s served nothing", c.name)
			}
			perSecond[c.name] = append(perSecond[c.name], l.requests/l.seconds)
			if c.pid != 0 {
				cpu[c.name] = append(cpu[c.name], float64((c.cpu(t)-before).Microseconds())/l.requests)
			}
		}
	}
	return perSecond, cpu
}

func (b *bench) http1(t *testing.T) Section {
	perSecond, cpu := b.rate(t, func(c *candidate) load {
		out := b.agent(t, "wrk", "-t1", "-c32", "-d"+b.slice.String(), "https://"+c.web()+"/small")
		if unhappyAnswer.MatchString(out) {
			t.Fatalf("wrk against %s: %s", c.name, out)
		}
		return load{number(t, wrkRequests, out, 1), b.slice.Seconds()}
	})
	return Section{
		Title: "HTTP/1.1, kept alive", About: "wrk, 32 connections, answers of 1 KiB.",
		Figures: []Figure{
			b.versus(Figure{Name: "CPU per request against the relay", Bar: 2.6, Aim: 1.4, AtMost: true, Gate: true}, relay, cpu, Ratio),
			b.versus(Figure{Name: "CPU per request, times cheaper than mitmproxy", Bar: 15, Aim: 28, Gate: true}, mitm, cpu, inverse),
			b.versus(Figure{Name: "requests/s against the relay"}, relay, perSecond, Ratio),
		},
		Columns: []string{"requests/s", "CPU us/request"},
		Rows:    b.table([]map[string][]float64{perSecond, cpu}),
	}
}

func (b *bench) http2(t *testing.T) Section {
	perSecond, cpu := b.rate(t, func(c *candidate) load {
		args := []string{"-t1", "-c8", "-m16", fmt.Sprintf("-D%d", int(b.slice.Seconds())), "https://" + c.web() + "/small"}
		out := b.agent(t, "h2load", args...)
		return load{number(t, h2Requests, out, 1), b.slice.Seconds()}
	})
	return Section{
		Title: "HTTP/2", About: "h2load, 8 connections with 16 streams each, answers of 1 KiB.",
		Figures: []Figure{
			b.versus(Figure{Name: "requests/s against the relay", Bar: 0.25, Aim: 0.85}, relay, perSecond, Ratio),
			b.versus(Figure{Name: "CPU per request, times cheaper than mitmproxy", Bar: 15, Aim: 50, Gate: true}, mitm, cpu, inverse),
			b.versus(Figure{Name: "CPU per request against the relay", AtMost: true}, relay, cpu, Ratio),
		},
		Columns: []string{"requests/s", "CPU us/request"},
		Rows:    b.table([]map[string][]float64{perSecond, cpu}),
	}
}

func number(t *testing.T, pattern *regexp.Regexp, text string, group int) float64 {
	m := pattern.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in %s", pattern, text)
	}
	n, err := strconv.ParseFloat(m[group], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (b *bench) newConnections(t *testing.T) Section {
	perSecond, cpu := b.rate(t, func(c *candidate) load {
		began := time.Now()
		n := b.handshakes(t, c, 8, b.slice)
		return load{float64(n), time.Since(began).Seconds()}
	})
	return Section{
		Title: "New TLS connections", About: "Full handshakes (X25519, ECDSA) with one request each, 8 clients at once. Clients that offer X25519MLKEM768 get it from the " +
			"firewall, unlike from nginx here; that costs about a quarter of the rate.",
		Figures: []Figure{
			b.versus(Figure{Name: "connections/s against direct", Bar: 0.85, Aim: 0.95}, direct, perSecond, Ratio),
			b.versus(Figure{Name: "connections/s against mitmproxy", Bar: 10, Aim: 12}, mitm, perSecond, Ratio),
		},
		Columns: []string{"connections/s", "CPU us/connection"},
		Rows:    b.table([]map[string][]float64{perSecond, cpu}),
	}
}

func (b *bench) latency(t *testing.T) Section {
	p50, p99, delay := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	for range b.rounds {
		for _, c := range b.running() {
			times := b.sequential(t, c, 300)
			p50[c.name] = append(p50[c.name], times[len(times)/2])
			p99[c.name] = append(p99[c.name], times[len(times)*99/100])
			delay[c.name] = append(delay[c.name], Median(b.eventDelays(t, c)))
		}
	}
	added := Figure{Name: "added p50 latency against mitmproxy's", Bar: 0.2, Aim: 0.125, AtMost: true}
	if why := b.candidate(mitm).why; why != "" {
		added = Missing(added, why)
	} else {
		added.Unit = "x"
		added.Value = Ratio(minus(p50[ours], p50[direct]), minus(p50[mitm], p50[direct]))
	}
	return Section{
		Title: "Latency", About: "One connection, one request after the other; and the delay of server-sent events, 10 ms apart.",
		Figures: []Figure{
			added,
			{
				Name: "delay of a server-sent event beyond the relay's", Unit: "ms", AtMost: true, Bar: 0.3, Aim: 0.1,
				Value: Median(minus(delay[ours], delay[relay])) / 1000,
			},
		},
		Columns: []string{"p50 us", "p99 us", "event delay p50 us"},
		Rows:    b.table([]map[string][]float64{p50, p99, delay}),
	}
}

// minus is a[i]-b[i].
func minus(a, b []float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = a[i] - b[i]
	}
	return out
}
