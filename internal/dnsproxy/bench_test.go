package dnsproxy_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/dnsproxy"
	"github.com/rootcell-ai/rootcell/internal/dnstest"
	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/upstream"
)

// BenchmarkServe measures queries over loopback UDP, sixteen under way at a time,
// with the audit log on disk.
func BenchmarkServe(b *testing.B) {
	names := map[string]func(i int) string{
		"cached":   func(int) string { return "www.ok.example." },
		"uncached": func(i int) string { return fmt.Sprintf("n%d.ok.example.", i) },
		"denied":   func(int) string { return "www.evil.example." },
	}
	for kind, name := range names {
		b.Run(kind, func(b *testing.B) {
			authority := dnstest.Start(b, always)
			resolver, err := upstream.New(upstream.Config{Resolvers: []netip.AddrPort{authority.Addr}})
			if err != nil {
				b.Fatal(err)
			}
			defer resolver.Close()
			log, err := audit.Open(filepath.Join(b.TempDir(), "audit.jsonl"), 64<<20, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer log.Close()
			gate := enforce.New()
			gate.Swap(rules(b, "ok.example"))
			server := dnsproxy.New(dnsproxy.Config{Gate: gate, Resolver: resolver, Audit: log, Instance: "default",
				Limits: dnsproxy.Limits{BudgetChars: 1 << 40}})
			sockets := listen(b)
			addr := sockets.TCP.Addr().String()
			go server.Serve(sockets)
			defer func() { _ = server.Shutdown(b.Context()) }()
			conn, err := net.Dial("udp4", addr)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			queries := make([][]byte, b.N)
			for i := range queries {
				var m dns.Msg
				m.SetQuestion(name(i), dns.TypeA)
				m.SetEdns0(1232, false)
				if queries[i], err = m.Pack(); err != nil {
					b.Fatal(err)
				}
			}
			window := make(chan struct{}, 16)
			b.ReportAllocs()
			b.ResetTimer()
			go func() {
				for _, q := range queries {
					window <- struct{}{}
					if _, err := conn.Write(q); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			buf := make([]byte, 2048)
			for range queries {
				if _, err := conn.Read(buf); err != nil {
					b.Fatal(err)
				}
				<-window
			}
		})
	}
}
