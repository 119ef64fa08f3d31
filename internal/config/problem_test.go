package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProblems(t *testing.T) {
	tests := map[string]struct {
		text string // without the line schema = 1, so that line 2 is its first
		want []string
	}{
		"all problems come at once, in order": {
			text: "provider = \"docker\"\n[agent]\ncpus = 0\nmemry = \"1GiB\"\nmemory = \"lots\"\n[network]\nfirewall_ip = \"8.8.8.8\"\n",
			want: []string{
				`x:2:12: "docker" is not known here; write "auto", "lima", "qemu" or "aws-ec2"`,
				`x:4:8: agent.cpus is 0; write a number from 1 to 256`,
				`x:5:1: the key "agent.memry" is unknown; did you mean "memory"?`,
				`x:6:10: "lots" is no size; write a size such as "4GiB" or "512MiB"`,
				`x:8:15: "8.8.8.8" is no private address; take one from 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16`,
			},
		},
		"broken syntax": {
			text: "provider = \n",
			want: []string{`x:2:12: ` + "*" + `mend the TOML syntax there; other problems show afterwards`},
		},
		"a key given twice": {
			text: "provider = \"qemu\"\nprovider = \"lima\"\n",
			want: []string{`x:3:1: *`},
		},
		"an unknown table": {
			text: "[fierwall]\ncpus = 1\n",
			want: []string{`x:2:2: the key "fierwall" is unknown; did you mean "firewall"?`},
		},
		"an unknown key that resembles nothing": {
			text: "[qemu]\nzzzzzz = 1\n",
			want: []string{`x:3:1: the key "qemu.zzzzzz" is unknown; known here: binary, accel`},
		},
		"an unknown key in an inline table": {
			text: "agent = { cpu = 1 }\n",
			want: []string{`x:2:11: the key "agent.cpu" is unknown; did you mean "cpus"?`},
		},
		"an array of tables where a table belongs": {
			text: "[[agent]]\ncpus = 1\n",
			want: []string{`x:2:3: this is an array; write a table`},
		},
		"a value where a table belongs": {
			text: "agent = 3\n",
			want: []string{`x:2:9: this is the number 3; write a table`},
		},
		"wrong types": {
			text: "provider = 1\n[guest]\nharness = \"pi\"\n[spy]\nenabled = \"yes\"\nretention = 7\nmax_bytes = 1.5\n[agent]\ncpus = 1979-05-27\nmemory = -1\n",
			want: []string{
				`x:2:12: this is the number 1; write a string`,
				`x:4:11: this is the string "pi"; write an array of strings, e.g. ["a", "b"]`,
				`x:6:11: this is the string "yes"; write true or false`,
				`x:7:13: this is the number 7; write a duration such as "7d" or "36h"`,
				`x:8:13: this is the number 1.5; write a size such as "4GiB" or "512MiB"`,
				`x:10:8: this is a date or time; write a whole number`,
				`x:11:10: the size -1 is negative; write a size such as "4GiB" or "512MiB"`,
			},
		},
		"elements of an array are found": {
			text: "[guest]\nharness = [\"pi\", \"cursor\",\n  7]\n[policy]\nresolvers = [\"dns.example\"]\nallow_private = [\"10.0.0.1/8\", \"0.0.0.0/0\", \"::1/128\", \"127.0.0.0/8\"]\n",
			want: []string{
				`x:3:18: "cursor" is not known here; write "pi", "claude" or "codex"`,
				`x:4:3: this is the number 7; write a string`,
				`x:6:14: "dns.example" is no resolver; write an IPv4 address, with :PORT unless that is 53, e.g. "9.9.9.9"`,
				`x:7:18: "10.0.0.1/8" has bits set behind its prefix; write "10.0.0.0/8"`,
				`x:7:32: "0.0.0.0/0" covers more than any private network; write an IPv4 network such as "10.20.0.0/16"`,
				`x:7:45: "::1/128" is no IPv4 network; write an IPv4 network such as "10.20.0.0/16"`,
				`x:7:56: "127.0.0.0/8" is the firewall's own loopback; remove it`,
			},
		},
		"sizes": {
			text: "[agent]\nmemory = \"4GB\"\ndisk = \"1GiB\"\n[firewall]\nmemory = \"200000KiB\"\ndisk = \"99999999999TiB\"\n",
			want: []string{
				`x:3:10: "4GB" has the unknown unit "GB"; units are B, KiB, MiB, GiB and TiB`,
				`x:4:8: agent.disk is 1GiB; write at least "4GiB"`,
				`x:6:10: firewall.memory is 204800000 bytes; write a multiple of "1MiB"`,
				`x:7:8: the size "99999999999TiB" is too large; write a size such as "4GiB" or "512MiB"`,
			},
		},
		"the pool": {
			text: "[network]\npool = [\"192.168.9.0\", \"192.168.1.0\"]\n",
			want: []string{`x:3:8: the pool ends (192.168.1.0) before it begins (192.168.9.0); write the first and last /24, e.g. ["192.168.100.0", "192.168.254.0"]`},
		},
		"a pool across public addresses": {
			text: "[network]\npool = [\"172.16.0.0\", \"192.168.1.0\"]\n",
			want: []string{`x:3:8: the pool from 172.16.0.0 to 192.168.1.0 crosses public addresses; *`},
		},
		"a pool of one address": {
			text: "[network]\npool = [\"192.168.1.0\"]\n",
			want: []string{`x:3:8: the pool has 1 addresses; *`},
		},
		"a pool that is no /24": {
			text: "[network]\npool = [\"192.168.1.4\", \"192.168.2.0\"]\n",
			want: []string{`x:3:9: "192.168.1.4" is no network address of a /24; *`},
		},
		"a pool over the uplink of qemu": {
			text: "[network]\npool = [\"10.0.0.0\", \"10.0.9.0\"]\n",
			want: []string{`x:3:8: 10.0.2.0/24 is the network of the firewall's uplink in the qemu provider; let the pool begin behind it`},
		},
		"a pinned address alone": {
			text: "[network]\nfirewall_ip = \"192.168.9.10\"\n",
			want: []string{`x:3:15: network.firewall_ip is set and network.agent_ip is not; write both, or neither to take a free subnet from the pool`},
		},
		"a pinned pair in two networks": {
			text: "[network]\nfirewall_ip = \"192.168.9.10\"\nagent_ip = \"192.168.8.11\"\n",
			want: []string{`x:4:12: 192.168.8.11 is not in 192.168.9.0/24, where the firewall 192.168.9.10 is; write two addresses of one /24`},
		},
		"a pinned pair of one address": {
			text: "[network]\nfirewall_ip = \"192.168.9.10\"\nagent_ip = \"192.168.9.10\"\n",
			want: []string{`x:4:12: firewall and agent have the same address 192.168.9.10; write two addresses of one /24`},
		},
		"pinned broadcast and public addresses": {
			text: "[network]\nfirewall_ip = \"192.168.9.255\"\nagent_ip = \"::1\"\n",
			want: []string{
				`x:3:15: "192.168.9.255" is the network's own or its broadcast address; write a host address such as 192.168.100.10`,
				`x:4:12: "::1" is no IPv4 address; write four numbers with dots, e.g. 192.168.100.10`,
			},
		},
		"names that could be options or need quoting": {
			text: "[guest]\nuser = \"root\"\npackages = [\"-oDebug\", \"a b\"]\n[lima]\nlimactl = \"-x\"\n[qemu]\nbinary = \"a\\nb\"\n",
			want: []string{
				`x:3:8: the agent's login cannot be root; write another name, e.g. "agent"; that user becomes root with sudo`,
				`x:4:13: "-oDebug" is no package name; letters, digits and + . _ -`,
				`x:4:24: "a b" is no package name; letters, digits and + . _ -`,
				`x:6:11: "-x" looks like an option; write the name or the path of the program`,
				`x:8:10: "a\nb" has a control character; remove it`,
			},
		},
		"the cloud": {
			text: "[aws]\nregion = \"Oregon\"\ncontrol_cidr = \"0.0.0.0/0\"\nagent_type = \"big\"\nami_owner = \"me\"\n",
			want: []string{
				`x:3:10: "Oregon" is no AWS region; write for instance "us-west-2"`,
				`x:4:16: "0.0.0.0/0" would let almost everyone reach the firewall's SSH; write "auto" or an IPv4 network such as "203.0.113.7/32"`,
				`x:5:14: "big" is no EC2 instance type; write for instance "t4g.large"`,
				`x:6:13: "me" is no AWS account; write twelve digits in quotes`,
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			compareProblems(t, test.want, Check("x", []byte("schema = 1\n"+test.text)))
		})
	}
}

// compareProblems takes * in an expected line for any text.
func compareProblems(t *testing.T, want []string, err error) {
	t.Helper()
	var got []string
	if err != nil {
		got = strings.Split(err.Error(), "\n")
	}
	for i := range min(len(want), len(got)) {
		if before, after, wild := strings.Cut(want[i], "*"); wild && strings.HasPrefix(got[i], before) && strings.HasSuffix(got[i], after) {
			got[i] = want[i]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("unexpected problems (-want +got):\n%s", diff)
	}
}

func TestSchemaIsRequired(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"missing":        {"provider = \"qemu\"\n", `x:1:1: the key schema is missing; write schema = 1 as the first line`},
		"an empty file":  {"", `x:1:1: the key schema is missing; write schema = 1 as the first line`},
		"a later schema": {"\nschema = 2\n", `x:2:10: schema 2 is not known; write schema = 1 as the first line, or use a rootcell that knows it`},
		"a string":       {"schema = \"1\"\n", `x:1:10: schema 1 is not known; *`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			compareProblems(t, []string{test.want}, Check("x", []byte(test.text)))
		})
	}
}

func TestProblemsOfEnvironmentAndFlags(t *testing.T) {
	_, err := Load(Sources{
		Environ: []string{"ROOTCELL_AGENT_CPUS=two", "ROOTCELL_NETWORK_AGENT_IP=192.168.9.11", "ROOTCELL_GUEST_HARNESS=pi,vim", "ROOTCELL_SPY_ENABLED=1"},
		Overrides: []Override{
			{Flag: "--memory", Key: "agent.memory", Value: "1"},
			{Flag: "--set", Key: "agent.memoy", Value: "1"},
		},
	})
	compareProblems(t, []string{
		`ROOTCELL_GUEST_HARNESS: "vim" is not known here; write "pi", "claude" or "codex"`,
		`ROOTCELL_AGENT_CPUS: this is the string "two"; write a whole number`,
		`ROOTCELL_SPY_ENABLED: this is the string "1"; write true or false`,
		`--memory: agent.memory is 1B; write at least "512MiB"`,
		`--set: the key "agent.memoy" is unknown; did you mean "agent.memory"?`,
		`ROOTCELL_NETWORK_AGENT_IP: network.agent_ip is set and network.firewall_ip is not; write both, or neither to take a free subnet from the pool`,
	}, err)
}

func TestSecretProblemsNeverQuoteReferences(t *testing.T) {
	const text = `schema = 1
[secrets]
NO_COLON = "hunter2hunter2"
BAD_ID = "not an id:hunter2"
EMPTY = "env:"
UNKNOWN = "vault:hunter2"
COMMAND = "command:hunter2"
"9BAD" = "env:hunter2"
NUMBER = 3
NO_FROM = { broker = { host = "a.example" } }
EXTRA = { from = "env:hunter2", brokr = 1 }
BAD_HOST = { from = "env:hunter2", broker = { host = "10.0.0.1" } }
BAD_HEADER = { from = "env:hunter2", broker = { host = "a.example", header = "a b" } }
[secret_providers]
env = { kind = "env" }
a = { kind = "vault" }
b = {}
c = { kind = "command" }
d = { kind = "command", command = ["-x"] }
e = { kind = "env", profile = "p" }
f = { kind = "aws-secrets-manager", region = "here" }
g = 1
`
	err := Check("x", []byte(text))
	compareProblems(t, []string{
		`x:3:12: the source names no provider; write "PROVIDER:REFERENCE", e.g. "macos-keychain:github-token"`,
		`x:4:10: the part before the colon is no provider id; provider ids are letters, digits and . _ -`,
		`x:5:9: the reference for provider "env" is empty; write what to ask the provider for behind the colon`,
		`x:6:11: secret UNKNOWN wants provider "vault", which is not configured; configured are macos-keychain, secret-service, aws-secrets-manager, env`,
		`x:7:11: secret COMMAND wants provider "command", which is not configured; a command needs a table [secret_providers.NAME] with kind = "command"`,
		`x:8:10: "9BAD" cannot be an environment variable; use letters, digits and _, e.g. GITHUB_TOKEN`,
		`x:9:10: a secret is a string or a table; *`,
		`x:10:11: the secret has no source; write from = "PROVIDER:REFERENCE"`,
		`x:11:41: the key "secrets.EXTRA.brokr" is unknown; did you mean "broker"?`,
		`x:12:54: "10.0.0.1" is no host name; write the one host that gets the secret, e.g. "api.github.com"`,
		`x:13:78: "a b" is no header name; write for instance "authorization" or "x-api-key"`,
		`x:15:7: "env" is the name of a kind of provider; take another id`,
		`x:16:14: "vault" is not known here; *`,
		`x:17:5: the provider has no kind; *`,
		`x:18:5: the command is no list of words; *`,
		`x:19:36: word 1 of the command is no usable string; *`,
		`x:20:31: the key "secret_providers.e.profile" is unknown; known here: kind`,
		`x:21:46: "here" is no AWS region; write for instance "us-west-2"`,
		`x:22:5: this is the number 1; write a table`,
	}, err)
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a problem shows a reference:\n%v", err)
	}
}
