//go:build linux

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// ask sends a datagram to the firewall's DNS port and returns the answer, nil when none comes within a second.
func (c *cell) ask(t *testing.T, message []byte) []byte {
	t.Helper()
	conn, err := c.Agent.Dial(t.Context(), "udp4", netlab.FirewallAddr+":53")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write(message)
	_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	buffer := make([]byte, 4096)
	n, _ := conn.Read(buffer)
	return buffer[:n]
}

// rawQuery is a query whose name is made of the given labels, whatever bytes they hold.
func rawQuery(flags uint16, qtype, class uint16, labels ...string) []byte {
	m := binary.BigEndian.AppendUint16([]byte{0x12, 0x34}, flags)
	m = append(m, 0, 1, 0, 0, 0, 0, 0, 0)
	for _, label := range labels {
		m = append(append(m, byte(len(label))), label...)
	}
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(append(m, 0), qtype), class)
}

func TestDNSLeaks(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{})
	query := func(t *testing.T, args ...string) string {
		t.Helper()
		return c.agent(t, "dig", append([]string{"+tries=1", "+time=2"}, args...)...).stdout
	}
	at := "@" + netlab.FirewallAddr
	for name, args := range map[string][]string{
		"D1 another resolver":              {"@" + netlab.InternetAddr, "ok.test.example"},
		"D1 another resolver by tcp":       {"@" + netlab.InternetAddr, "+tcp", "ok.test.example"},
		"D2 a denied name":                 {at, "secret.no.test.example"},
		"D4 a name that ends alike":        {at, "evilok.test.example"},
		"D4 an allowed name as label":      {at, "ok.test.example.evil.example"},
		"D5 TXT":                           {at, "TXT", "ok.test.example"},
		"D5 ANY":                           {at, "ANY", "ok.test.example"},
		"D5 NULL":                          {at, "TYPE10", "ok.test.example"},
		"D5 SRV":                           {at, "SRV", "ok.test.example"},
		"D5 MX":                            {at, "MX", "ok.test.example"},
		"D5 NAPTR":                         {at, "NAPTR", "ok.test.example"},
		"D5 CAA":                           {at, "CAA", "ok.test.example"},
		"D5 DNSKEY":                        {at, "DNSKEY", "ok.test.example"},
		"D5 an unknown type":               {at, "TYPE65280", "ok.test.example"},
		"D5 chaos":                         {at, "CH", "TXT", "version.bind"},
		"D6 HTTPS":                         {at, "HTTPS", "ok.test.example"},
		"D6 SVCB":                          {at, "SVCB", "ok.test.example"},
		"D9 a zone's transfer":             {at, "AXFR", "ok.test.example"},
		"D9 a zone's transfer by datagram": {at, "+notcp", "IXFR=1", "ok.test.example"},
		"D12 reverse":                      {at, "-x", "10.0.0.1"},
		"D12 reverse of the firewall":      {at, "-x", netlab.FirewallAddr},
		"D12 onion":                        {at, "x.onion"},
		"D12 internal":                     {at, "metadata.google.internal"},
		"D12 local":                        {at, "printer.local"},
	} {
		t.Run(name, func(t *testing.T) {
			c.mark(t)
			if strings.HasPrefix(name, "D6") {
				c.world.Record(t, `ok.test.example. 60 IN HTTPS 1 . alpn=h3 port=8443 ipv4hint=1.2.3.4`)
			}
			if out := query(t, args...); strings.Contains(out, "NOERROR") && strings.Contains(out, "ANSWER SECTION") {
				t.Errorf("answered:\n%s", out)
			}
			c.silent(t)
		})
	}
	t.Run("D2 a denied name by other channels", func(t *testing.T) {
		c.mark(t)
		_ = exchange(t, c.raw(t, netlab.FirewallAddr+":8080"), "CONNECT canary.no.test.example:22 HTTP/1.1\r\nHost: canary.no.test.example:22\r\n\r\n")
		c.code(t, "--resolve", "canary.no.test.example:443:"+netlab.InternetAddr, "https://canary.no.test.example/")
		c.code(t, "https://canary2.no.test.example/")
		c.silent(t)
		c.denied(t, "no-rule")
	})
	t.Run("D7 DNS over TLS, QUIC and HTTPS", func(t *testing.T) {
		c.mark(t)
		for _, network := range []string{"tcp4", "udp4"} {
			if conn, err := c.Agent.Dial(t.Context(), network, netlab.FirewallAddr+":853"); err == nil {
				_ = conn.SetDeadline(time.Now().Add(time.Second))
				_, _ = io.WriteString(conn, "x")
				if _, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
					t.Errorf("%s 853: %v", network, err)
				}
				_ = conn.Close()
			}
		}
		if got := c.code(t, "--resolve", "dns.test.example:443:"+netlab.InternetAddr, "https://dns.test.example/dns-query?dns=AAABAAAB"); got != "403" {
			t.Errorf("DNS over HTTPS: %s", got)
		}
		c.silent(t)
	})
	t.Run("D8 bytes that are not DNS", func(t *testing.T) {
		c.mark(t)
		for _, message := range [][]byte{[]byte("canary"), bytes.Repeat([]byte{0xff}, 1400), make([]byte, 12), {}} {
			if answer := c.ask(t, message); len(answer) > len(message)+60 {
				t.Errorf("%d bytes were answered by %d", len(message), len(answer))
			}
		}
		conn := c.raw(t, netlab.FirewallAddr+":53")
		if answer := exchange(t, conn, "GET / HTTP/1.1\r\nHost: ok.test.example\r\n\r\n"); strings.Contains(answer, "HTTP") {
			t.Errorf("answered %q", answer)
		}
		c.silent(t)
	})
	t.Run("D9 what the client adds stays here", func(t *testing.T) {
		c.world.Host(t, "edns.ok.test.example", nil)
		c.mark(t)
		query(t, at, "+subnet=203.0.113.0/24", "+cookie=0011223344556677", "+ednsopt=65001:deadbeef", "EDNS.OK.test.EXAMPLE")
		if seen := c.world.Sightings("dns"); len(seen) != 1 || seen[0].Name != "edns.ok.test.example" || seen[0].Text != "A" {
			t.Errorf("the far side saw %v", seen)
		}
	})
	t.Run("D9 messages that are no plain query", func(t *testing.T) {
		c.mark(t)
		good := rawQuery(0x0100, 1, 1, "ok", "test", "example")
		two := append(bytes.Clone(good), good[12:]...)
		two[5] = 2
		none := bytes.Clone(good[:12])
		none[5] = 0
		for what, message := range map[string][]byte{
			"update": rawQuery(5<<11, 6, 1, "ok", "test", "example"), "notify": rawQuery(4<<11, 6, 1, "ok", "test", "example"), "status": rawQuery(2<<11, 1, 1, "ok", "test", "example"),
			"two questions": two, "no question": none, "a response": rawQuery(0x8180, 1, 1, "ok", "test", "example"), "rubbish behind": append(bytes.Clone(good), "exfiltrated"...),
		} {
			answer := new(dns.Msg)
			if raw := c.ask(t, message); len(raw) > 0 && (answer.Unpack(raw) != nil || answer.Rcode == dns.RcodeSuccess) {
				t.Errorf("%s: answered %v", what, answer)
			}
		}
		c.silent(t)
	})
	t.Run("D10 odd names", func(t *testing.T) {
		c.mark(t)
		for what, labels := range map[string][]string{
			"a dot inside a label": {"x.ok", "test", "example"}, "NUL": {"a\x00b", "ok", "test", "example"}, "a space": {"a b", "ok", "test", "example"},
			"underscore": {"_dmarc", "ok", "test", "example"}, "eight bits": {"g\xd1\x96thub", "ok", "test", "example"}, "the root": {}, "a single label": {"example"},
			"a hyphen in front": {"-a", "ok", "test", "example"}, "sixty labels": append(strings.Split(strings.Repeat("a ", 100), " ")[:100], "evil", "example"),
		} {
			answer := new(dns.Msg)
			if raw := c.ask(t, rawQuery(0x0100, 1, 1, labels...)); len(raw) == 0 || answer.Unpack(raw) != nil || answer.Rcode == dns.RcodeSuccess {
				t.Errorf("%s: answered %v", what, answer)
			}
		}
		c.silent(t)
		c.world.Host(t, "mixed.ok.test.example", nil)
		c.mark(t)
		if out := query(t, at, "+short", "mIxEd.oK.TeSt.ExAmPlE"); !strings.Contains(out, netlab.InternetAddr) {
			t.Errorf("mixed case: %q", out)
		}
	})
	t.Run("D11 pointers, short messages and long ones", func(t *testing.T) {
		c.mark(t)
		loop := append(append([]byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0xc0, 12), 0, 1, 0, 1)
		forward := append(append([]byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 1, 'a', 0xc0, 30), 0, 1, 0, 1)
		good := rawQuery(0x0100, 1, 1, "ok", "test", "example")
		for _, message := range [][]byte{loop, forward, good[:len(good)-3], good[:14], good[:5], append(good[:len(good):len(good)], make([]byte, 1200)...)} {
			c.ask(t, message)
		}
		conn := c.raw(t, netlab.FirewallAddr+":53")
		_, _ = conn.Write(append([]byte{0xff, 0xff}, make([]byte, 65535)...))
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.ReadAll(conn)
		c.silent(t)
		if out := query(t, at, "+short", "ok.test.example"); !strings.Contains(out, netlab.InternetAddr) {
			t.Errorf("afterwards: %q", out)
		}
	})
	t.Run("D15 the cache tells nothing that the list does not allow", func(t *testing.T) {
		query(t, at, "sshok.test.example")
		c.daemon.WritePolicy(t, "ok.test.example\n", httpsList, sshList)
		c.daemon.Ctl(t, nil, "reload")
		c.mark(t)
		if out := query(t, at, "+norecurse", "sshok.test.example"); !strings.Contains(out, "REFUSED") {
			t.Errorf("answered from the cache:\n%s", out)
		}
		c.silent(t)
		c.daemon.WritePolicy(t, dnsList, httpsList, sshList)
		c.daemon.Ctl(t, nil, "reload")
	})
	t.Run("D16 a denied name tells nothing about itself", func(t *testing.T) {
		c.mark(t)
		exists := c.ask(t, rawQuery(0x0100, 1, 1, "no", "test", "example"))
		missing := c.ask(t, rawQuery(0x0100, 1, 1, "na", "test", "example"))
		if len(exists) < 12 || !bytes.Equal(bytes.ReplaceAll(exists, []byte("no"), []byte("na")), bytes.ReplaceAll(missing, []byte("no"), []byte("na"))) {
			t.Errorf("answers differ:\n%q\n%q", exists, missing)
		}
		c.silent(t)
	})
}

func TestDNSTunnel(t *testing.T) {
	t.Parallel()
	c := newCell(t, netlab.Options{DNS: "suffix.test.example\nok.test.example\n", HTTPS: "ok.test.example\n", SSH: "\n", Extra: "[limits]\ndns_budget_chars = 400\ndns_budget_per_hour = 60\ndns_queries = 16\n"})
	c.world.Host(t, "www.suffix.test.example", nil)
	t.Run("D3 names that carry data through an allowed suffix", func(t *testing.T) {
		c.mark(t)
		payload := strings.Repeat("0123456789abcdef", 3) + "0123"
		if r := c.agent(t, "dig", "+tries=1", "@"+netlab.FirewallAddr, payload+".suffix.test.example"); !strings.Contains(r.stdout, "REFUSED") {
			t.Errorf("answered:\n%s", r.stdout)
		}
		c.silent(t)
		c.denied(t, "limit")
		for i := range 60 {
			c.ask(t, rawQuery(0x0100, 1, 1, fmt.Sprintf("chunk%04d", i), "suffix", "test", "example"))
		}
		carried := 0
		for _, s := range c.world.Sightings("dns", "chunk") {
			carried += len(s.Name) - len(".suffix.test.example")
		}
		if carried == 0 || carried > 400 {
			t.Errorf("%d characters went out, want some and at most the budget of 400", carried)
		}
	})
	t.Run("D14 a flood of names leaves the others alone", func(t *testing.T) {
		conn, err := c.Agent.Dial(t.Context(), "udp4", netlab.FirewallAddr+":53")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		for i := range 5000 {
			_, _ = conn.Write(rawQuery(0x0100, 1, 1, fmt.Sprintf("r%d", i), "suffix", "test", "example"))
		}
		if r := c.agent(t, "dig", "+short", "+tries=3", "+time=1", "@"+netlab.FirewallAddr, "ok.test.example"); !strings.Contains(r.stdout, netlab.InternetAddr) {
			t.Errorf("got %+v", r)
		}
		if seen := len(c.world.Sightings("dns", "suffix")); seen > 200 {
			t.Errorf("%d queries went out", seen)
		}
	})
	t.Run("D13 a forged answer from the agent's side", func(t *testing.T) {
		before := c.counter(t, "agent_spoofed")
		c.packets(t, "spoofdns", netlab.InternetAddr, netlab.UplinkAddr)
		if after := c.counter(t, "agent_spoofed"); after <= before {
			t.Errorf("the forged datagrams were not dropped as such: %d then %d", before, after)
		}
		if r := c.agent(t, "dig", "+short", "@"+netlab.FirewallAddr, "ok.test.example"); strings.TrimSpace(r.stdout) != netlab.InternetAddr {
			t.Errorf("got %+v", r)
		}
	})
}
