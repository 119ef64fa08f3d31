package dnsproxy_test

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/rootcell-ai/rootcell/internal/dnsproxy"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// carried counts the characters before the suffix that the authority saw.
func carried(l *lab, suffix string) (chars int) {
	for _, name := range l.authority.Names() {
		chars += len(strings.TrimSuffix(name, suffix))
	}
	return chars
}

// TestATunnelThroughAnAllowedSuffixRunsDry sends data below an allowed suffix in
// the shapes that tunnels use, and asserts at the authority how much arrived.
func TestATunnelThroughAnAllowedSuffixRunsDry(t *testing.T) {
	shapes := map[string]func(i int) string{
		"short random labels":  func(int) string { return hex.EncodeToString(randomBytes(8)) },
		"counted words":        func(i int) string { return fmt.Sprintf("n%d", i) },
		"many labels":          func(int) string { return strings.Join(strings.Split(hex.EncodeToString(randomBytes(6)), ""), ".") },
		"medium random labels": func(int) string { return hex.EncodeToString(randomBytes(16)) },
		"base-32 labels of 56": func(int) string { return strings.ToLower(base32.StdEncoding.EncodeToString(randomBytes(35))) },
		"several labels of hex": func(int) string {
			return hex.EncodeToString(randomBytes(30)) + "." + hex.EncodeToString(randomBytes(30))
		},
		"letters alone, in words": func(int) string {
			return strings.Trim(strings.Map(letters, base32.StdEncoding.EncodeToString(randomBytes(10))), "=")
		},
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			const budget = 600
			l := newLab(t, dnsproxy.Limits{BudgetChars: budget, BudgetPerHour: 1}, always, "tunnel.example", "other.example", "exact.tunnel.test")
			refused := 0
			for i := range 300 {
				r := l.ask(t, "udp", shape(i)+".tunnel.example", dns.TypeA)
				switch {
				case r.Rcode == dns.RcodeRefused:
					refused++
					if e := l.events.last(t); e.Reason != string(policy.Limit) || e.Rule != "allowed-dns.txt:1" {
						t.Fatalf("recorded %+v", e)
					}
				case r.Rcode != dns.RcodeSuccess:
					t.Fatal(describe(r))
				}
			}
			if got := carried(l, ".tunnel.example"); got > budget || refused == 0 {
				t.Errorf("%d characters reached the authority, budget %d; %d refused", got, budget, refused)
			}
			// Others are not affected, nor is what is listed itself.
			for _, name := range []string{"www.other.example", "tunnel.example", "exact.tunnel.test"} {
				if r := l.ask(t, "udp", name, dns.TypeA); r.Rcode != dns.RcodeSuccess {
					t.Errorf("%s: %s", name, describe(r))
				}
			}
		})
	}
}

// letters maps the digits of base 32 to letters.
func letters(r rune) rune {
	if '2' <= r && r <= '7' {
		return r - '2' + 'a'
	}
	return r
}

func TestNamesShapedLikeDataStayHere(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{}, always, "tunnel.example")
	for name, data := range map[string]string{
		"base 32":              strings.ToLower(base32.StdEncoding.EncodeToString([]byte("the quick brown fox jumps over 13 dogs"))[:60]),
		"hex":                  hex.EncodeToString([]byte("the quick brown fox jumps over")),
		"hex in a later label": "0." + hex.EncodeToString([]byte("the quick brown fox jumps over")) + ".x",
		"very many characters": strings.Repeat("word-of-mine.", 10) + "x",
	} {
		r := l.ask(t, "udp", data+".tunnel.example", dns.TypeA)
		if r.Rcode != dns.RcodeRefused || l.events.last(t).Reason != string(policy.Limit) {
			t.Errorf("%s: %s", name, describe(r))
		}
	}
	if names := l.authority.Names(); len(names) != 0 {
		t.Errorf("the authority was asked for %q", names)
	}
}

func TestNamesOfOrdinaryServicesPass(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{}, always, "example.com")
	for _, name := range []string{
		"api", "d111111abcdef8", "my-bucket.s3.eu-central-1", "bedrock-runtime.us-east-1",
		"vpce-0a1b2c3d4e5f60718-abcdefgh.bedrock-runtime.us-east-1.vpce",
		"internal-my-load-balancer-1234567890.us-west-2.elb",
		"project-git-some-feature-branch-of-mine-my-team-name.preview",
		"a-rather-long-name-that-somebody-has-given-to-a-service-v2",
		"rr3---sn-4g5e6nzz", "lb-550e8400-e29b-41d4-a716-446655440000", "1-2-3-4.ec2", "xn--bcher-kva",
	} {
		if r := l.ask(t, "udp", name+".example.com", dns.TypeA); r.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: %s", name, describe(r))
		}
	}
}

// TestAskingAgainIsNotFree: which of the known names is asked for again is a
// message too.
func TestAskingAgainIsNotFree(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{BudgetChars: 100, BudgetPerHour: 1}, always, "tunnel.example")
	passed := 0
	for range 300 {
		l.resolver.Flush()
		if l.ask(t, "udp", "a.tunnel.example", dns.TypeA).Rcode == dns.RcodeSuccess {
			passed++
		}
	}
	if passed < 50 || passed > 100 {
		t.Errorf("%d of 300 repeated lookups passed with a budget of 100", passed)
	}
}

func TestTheRuleForEverythingHasABudgetForEachDomain(t *testing.T) {
	l := newLab(t, dnsproxy.Limits{BudgetChars: 100, BudgetPerHour: 1}, always, "*")
	for i := range 50 {
		l.ask(t, "udp", fmt.Sprintf("name-%d.tunnel.example", i), dns.TypeA)
	}
	if got := carried(l, ".tunnel.example"); got > 100 {
		t.Errorf("%d characters reached the authority", got)
	}
	if r := l.ask(t, "udp", "www.other.example", dns.TypeA); r.Rcode != dns.RcodeSuccess {
		t.Errorf("another domain: %s", describe(r))
	}
}
