//go:build linux

package firewallinit

import (
	"strings"
	"testing"
)

const chains = `{"nftables": [{"metainfo": {"version": "1.0.6"}},
{"chain": {"family": "inet", "table": "rootcell", "name": "prerouting_nat", "type": "nat", "hook": "prerouting", "prio": -100, "policy": "accept"}},
{"chain": {"family": "inet", "table": "rootcell", "name": "from_agent"}},
{"chain": {"family": "inet", "table": "rootcell", "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
{"chain": {"family": "inet", "table": "rootcell", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
{"chain": {"family": "inet", "table": "rootcell", "name": "output", "type": "filter", "hook": "output", "prio": 0, "policy": "drop"}}]}`

func TestCheckChains(t *testing.T) {
	if err := CheckChains([]byte(chains)); err != nil {
		t.Errorf("the ruleset's own chains: %v", err)
	}
	cases := map[string]string{
		"nothing":                         "",
		"no chains":                       `{"nftables": []}`,
		"an input that accepts":           strings.Replace(chains, `"hook": "input", "prio": 0, "policy": "drop"`, `"hook": "input", "prio": 0, "policy": "accept"`, 1),
		"no forward chain":                strings.Replace(chains, `"hook": "forward"`, `"hook": "ingress"`, 1),
		"another table's output":          strings.Replace(chains, `"table": "rootcell", "name": "output"`, `"table": "other", "name": "output"`, 1),
		"an IPv4 table":                   strings.ReplaceAll(chains, `"family": "inet"`, `"family": "ip"`),
		"a nat chain in a filter's place": strings.Replace(chains, `"type": "filter", "hook": "output"`, `"type": "nat", "hook": "output"`, 1),
	}
	for name, listing := range cases {
		t.Run(name, func(t *testing.T) {
			if err := CheckChains([]byte(listing)); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestConfineRefusesOtherPrograms(t *testing.T) {
	for _, name := range []string{"", "sh", "/bin/sh", "../daemon"} {
		if err := Confine(name); err == nil {
			t.Errorf("Confine(%q) did not refuse", name)
		}
	}
}
