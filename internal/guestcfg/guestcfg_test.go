package guestcfg

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func block(kind, body string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(body)}))
}

func firewallConfig() Config {
	return Config{
		Schema: Schema, Role: RoleFirewall, Instance: "default", Hostname: "firewall",
		Network: Network{
			Cell:        Interface{MAC: "52:54:00:00:00:0a", Address: "192.168.100.10/24"},
			Uplink:      &Interface{MAC: "52:54:00:00:00:0b", Address: "10.0.2.15/24", Gateway: "10.0.2.2", MTU: 1500},
			PeerAddress: "192.168.100.11", PeerMAC: "52:54:00:00:00:0c",
		},
		SSH: SSH{HostKey: Secret(block("OPENSSH PRIVATE KEY", "hush")), AuthorizedKeys: []string{"ssh-ed25519 AAAA host"}},
		Firewall: &Firewall{
			TOML: "schema = 1\n", CACert: block("CERTIFICATE", "c"), CAKey: Secret(block("PRIVATE KEY", "hush")),
			Policy: map[string]string{"allowed-dns.txt": "github.com\n"},
		},
	}
}

func agentConfig() Config {
	return Config{
		Schema: Schema, Role: RoleAgent, Instance: "default", Hostname: "agent",
		Network: Network{
			Cell:        Interface{MAC: "52:54:00:00:00:0c", Address: "192.168.100.11/24", Gateway: "192.168.100.10"},
			PeerAddress: "192.168.100.10", PeerMAC: "52:54:00:00:00:0a",
		},
		SSH: SSH{HostKey: Secret(block("OPENSSH PRIVATE KEY", "hush")), AuthorizedKeys: []string{"ssh-ed25519 AAAA host"}},
		Agent: &Agent{
			User: "agent", CACert: block("CERTIFICATE", "c"), ConnectAddress: "192.168.100.10:8080",
			Env: map[string]string{"EDITOR": "vi"},
		},
	}
}

func TestRoundTrip(t *testing.T) {
	rooted := firewallConfig()
	rooted.Firewall.UpstreamRoots = "# ours\n" + block("CERTIFICATE", "a") + block("CERTIFICATE", "b")
	for name, c := range map[string]Config{"firewall": firewallConfig(), "agent": agentConfig(), "a firewall with roots of its own": rooted} {
		t.Run(name, func(t *testing.T) {
			text, err := Encode(c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c, got); diff != "" {
				t.Errorf("document changed on its way (-sent +read):\n%s", diff)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	cases := map[string]struct {
		firewall func(*Config)
		agent    func(*Config)
		want     string
	}{
		"another schema":                         {firewall: func(c *Config) { c.Schema = 2 }, want: "schema is 2"},
		"no role":                                {firewall: func(c *Config) { c.Role = "" }, want: "role"},
		"an agent with the firewall's part":      {agent: func(c *Config) { c.Firewall = firewallConfig().Firewall }, want: "no other"},
		"a firewall without its part":            {firewall: func(c *Config) { c.Firewall = nil }, want: "needs the part"},
		"an agent with an uplink":                {agent: func(c *Config) { c.Network.Uplink = firewallConfig().Network.Uplink }, want: "no uplink"},
		"a firewall without an uplink":           {firewall: func(c *Config) { c.Network.Uplink = nil }, want: "uplink is missing"},
		"a firewall routed through its agent":    {firewall: func(c *Config) { c.Network.Cell.Gateway = "192.168.100.11" }, want: "no route through"},
		"one MAC twice":                          {firewall: func(c *Config) { c.Network.Uplink.MAC = "52:54:00:00:00:0A" }, want: "is also"},
		"a multicast MAC":                        {agent: func(c *Config) { c.Network.Cell.MAC = "01:00:5e:00:00:01" }, want: "unicast"},
		"an IPv6 address":                        {agent: func(c *Config) { c.Network.Cell.Address = "fd00::1/64" }, want: "IPv4"},
		"an address without a prefix":            {agent: func(c *Config) { c.Network.Cell.Address = "192.168.100.11" }, want: "network.cell.address"},
		"a peer outside the network":             {agent: func(c *Config) { c.Network.PeerAddress = "10.0.0.1" }, want: "peer_address"},
		"a peer that is the guest itself":        {agent: func(c *Config) { c.Network.PeerAddress = "192.168.100.11" }, want: "peer_address"},
		"a gateway outside the network":          {agent: func(c *Config) { c.Network.Cell.Gateway = "10.0.0.1" }, want: "gateway"},
		"nobody may log in":                      {agent: func(c *Config) { c.SSH.AuthorizedKeys = nil }, want: "authorized_keys"},
		"an authorized key with a line break":    {agent: func(c *Config) { c.SSH.AuthorizedKeys[0] += "\nssh-ed25519 BBBB" }, want: "one line"},
		"a CA certificate followed by its key":   {agent: func(c *Config) { c.Agent.CACert += block("PRIVATE KEY", "hush") }, want: "more than one"},
		"a key where the CA certificate belongs": {agent: func(c *Config) { c.Agent.CACert = block("PRIVATE KEY", "hush") }, want: "not a PEM"},
		"a key among the upstream roots": {firewall: func(c *Config) {
			c.Firewall.UpstreamRoots = block("CERTIFICATE", "c") + block("PRIVATE KEY", "hush")
		}, want: "certificates alone"},
		"upstream roots that are none":              {firewall: func(c *Config) { c.Firewall.UpstreamRoots = "roots" }, want: "upstream_roots"},
		"a policy file outside its directory":       {firewall: func(c *Config) { c.Firewall.Policy["../x"] = "" }, want: "not a file name"},
		"an environment value with a line break":    {agent: func(c *Config) { c.Agent.Env["A"] = "b\nc" }, want: "agent.env"},
		"an environment name that is none":          {agent: func(c *Config) { c.Agent.Env["A B"] = "c" }, want: "agent.env"},
		"a login as root":                           {agent: func(c *Config) { c.Agent.User = "root" }, want: "agent.user"},
		"a CONNECT proxy by name":                   {agent: func(c *Config) { c.Agent.ConnectAddress = "firewall:8080" }, want: "connect_address"},
		"an instance name that climbs directories":  {agent: func(c *Config) { c.Instance = "../x" }, want: "instance"},
		"a host name of two labels":                 {agent: func(c *Config) { c.Hostname = "a.b" }, want: "hostname"},
		"a firewall without its configuration file": {firewall: func(c *Config) { c.Firewall.TOML = " \n" }, want: "firewall.toml"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c, change := firewallConfig(), tc.firewall
			if tc.agent != nil {
				c, change = agentConfig(), tc.agent
			}
			change(&c)
			if _, err := Encode(c); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Encode = %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	good, err := Encode(agentConfig())
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{
		"nothing":                 nil,
		"no object":               []byte(`[]`),
		"an unknown key":          bytes.Replace(good, []byte(`"role"`), []byte(`"rule":1,"role"`), 1),
		"an unknown inner key":    bytes.Replace(good, []byte(`"mac"`), []byte(`"mag":1,"mac"`), 1),
		"text after the document": append(bytes.Clone(good), "{}"...),
		"another schema":          bytes.Replace(good, []byte(`"schema": 1`), []byte(`"schema": 2`), 1),
		"half a document":         good[:len(good)/2],
		"too many bytes":          bytes.Repeat([]byte(" "), MaxBytes+1),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := Decode(text); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestSecretsDoNotShowThemselves(t *testing.T) {
	c := firewallConfig()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", c.SSH.HostKey)
	secret := c.SSH.HostKey.Reveal()[40:60]
	for _, shown := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c.SSH), fmt.Sprintf("%v", c.Firewall), log.String()} {
		if strings.Contains(shown, secret) || strings.Contains(shown, "PRIVATE KEY") {
			t.Errorf("a key shows in %q", shown)
		}
	}
}

// A document that decodes encodes again to one that decodes to the same.
func FuzzDecode(f *testing.F) {
	for _, c := range []Config{firewallConfig(), agentConfig()} {
		text, err := Encode(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"schema":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Decode(text)
		if err != nil {
			return
		}
		again, err := Encode(c)
		if err != nil {
			t.Fatalf("encoding what was decoded: %v", err)
		}
		back, err := Decode(again)
		if err != nil {
			t.Fatalf("decoding what was encoded: %v", err)
		}
		if diff := cmp.Diff(c, back); diff != "" {
			t.Error(diff)
		}
	})
}
