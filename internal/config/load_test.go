package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var compareConfig = cmp.Options{
	cmpopts.IgnoreUnexported(Config{}),
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProjectFileIsTheAnnotatedDefault(t *testing.T) {
	text, err := os.ReadFile("../../rootcell.toml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(annotated, string(text)); diff != "" {
		t.Errorf("copy internal/config/defaults.toml to rootcell.toml at the top (-defaults +rootcell.toml):\n%s", diff)
	}
}

func TestAnnotatedDefaultsAreTheBuiltInOnes(t *testing.T) {
	got, err := Load(Sources{Project: write(t, "rootcell.toml", annotated)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got, compareConfig); diff != "" {
		t.Errorf("built-in and annotated defaults differ (-built-in +annotated):\n%s", diff)
	}
	for _, setting := range got.Settings() {
		if setting.Origin.Source != Project {
			t.Errorf("the annotated file does not mention %s", setting.Key)
		}
	}
}

func TestSeedSetsNothing(t *testing.T) {
	got, err := Load(Sources{Instance: write(t, "rootcell.toml", string(Seed()))})
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range got.Settings() {
		if setting.Origin.Source != BuiltIn {
			t.Errorf("the seed sets %s", setting.Key)
		}
		if name := setting.Key[strings.LastIndexByte(setting.Key, '.')+1:]; !strings.Contains(string(Seed()), "\n# "+name+" = ") {
			t.Errorf("the seed does not show %s", setting.Key)
		}
	}
}

const everything = `schema = 1
provider = "qemu"
[guest]
os = "debian"
system = "aarch64-linux"
user = "dev"
harness = ["claude", "codex"]
packages = ["ripgrep", "g++", "python3.11"]
[agent]
cpus = 8
memory = "16GiB"
disk = 68719476736
[firewall]
cpus = 2
memory = "256MiB"
disk = "1GiB"
[network]
pool = ["10.77.0.0", "10.77.9.0"]
firewall_ip = "192.168.109.10"
agent_ip = "192.168.109.11"
[policy]
deny_style = "reset"
resolvers = ["9.9.9.9", "10.0.0.53:5353"]
allow_private = ["10.20.0.0/16", "192.168.7.9"]
[secrets]
A = "macos-keychain:aws:key"
B = { from = "work:item/1", broker = { host = "API.GitHub.com", header = "X-Api-Key" } }
C = { from = "env:TOKEN" }
D = { from = "env:TOKEN", broker = { host = "api.example.com" } }
[secret_providers.work]
kind = "command"
command = ["op", "read"]
[secret_providers.aws-prod]
kind = "aws-secrets-manager"
profile = "prod"
region = "us-gov-west-1"
[lima]
limactl = "/opt/lima/bin/limactl"
[aws]
profile = "p"
region = "us-west-2"
control_cidr = "203.0.113.7/32"
agent_type = "m8g.large"
firewall_type = "t4g.nano"
ami_owner = "000000000001"
ami_name = "x*"
terraform = "terraform"
[qemu]
binary = "/usr/bin/qemu-system-x86_64"
accel = "tcg"
[spy]
enabled = true
retention = "36h"
max_bytes = "10MiB"
`

func TestLoadReadsEveryKey(t *testing.T) {
	got, err := Load(Sources{Instance: write(t, "rootcell.toml", everything)})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Provider: "qemu",
		Guest: Guest{
			OS: "debian", System: "aarch64-linux", User: "dev",
			Harness: []string{"claude", "codex"}, Packages: []string{"ripgrep", "g++", "python3.11"},
		},
		Agent:    Machine{CPUs: 8, Memory: 16 << 30, Disk: 64 << 30},
		Firewall: Machine{CPUs: 2, Memory: 256 << 20, Disk: 1 << 30},
		Network: Network{
			PoolFirst: netip.MustParseAddr("10.77.0.0"), PoolLast: netip.MustParseAddr("10.77.9.0"),
			FirewallIP: netip.MustParseAddr("192.168.109.10"), AgentIP: netip.MustParseAddr("192.168.109.11"),
		},
		Policy: Policy{
			DenyStyle:    "reset",
			Resolvers:    []netip.AddrPort{netip.MustParseAddrPort("9.9.9.9:53"), netip.MustParseAddrPort("10.0.0.53:5353")},
			AllowPrivate: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("192.168.7.9/32")},
		},
		Secrets: map[string]Secret{
			"A": {Provider: "macos-keychain", Reference: "aws:key"},
			"B": {Provider: "work", Reference: "item/1", Broker: &Broker{Host: "api.github.com", Header: "x-api-key"}},
			"C": {Provider: "env", Reference: "TOKEN"},
			"D": {Provider: "env", Reference: "TOKEN", Broker: &Broker{Host: "api.example.com", Header: "authorization"}},
		},
		SecretProviders: map[string]SecretProvider{
			"work":     {Kind: "command", Command: []string{"op", "read"}},
			"aws-prod": {Kind: "aws-secrets-manager", Profile: "prod", Region: "us-gov-west-1"},
		},
		Lima: Lima{Limactl: "/opt/lima/bin/limactl"},
		AWS: AWS{
			Profile: "p", Region: "us-west-2", ControlCIDR: "203.0.113.7/32", AgentType: "m8g.large", FirewallType: "t4g.nano",
			AMIOwner: "000000000001", AMIName: "x*", Terraform: "terraform",
		},
		QEMU: QEMU{Binary: "/usr/bin/qemu-system-x86_64", Accel: "tcg"},
		Spy:  Spy{Enabled: true, Retention: 36 * time.Hour, MaxBytes: 10 << 20},
	}
	if diff := cmp.Diff(want, got, compareConfig); diff != "" {
		t.Errorf("unexpected configuration (-want +got):\n%s", diff)
	}
}

func TestStrongerLayersWin(t *testing.T) {
	project := write(t, "project.toml", "schema = 1\n[agent]\ncpus = 3\nmemory = \"3GiB\"\ndisk = \"30GiB\"\n[firewall]\ncpus = 3\n[secrets]\nA = \"env:A\"\nB = \"env:B\"\n")
	instance := write(t, "instance.toml", "schema = 1\n[agent]\nmemory = \"4GiB\"\n  disk = \"40GiB\"\n[firewall]\ncpus = 4\n[secrets]\nB = \"env:C\"\n")
	got, err := Load(Sources{
		Project:  project,
		Instance: instance,
		Environ:  []string{"ROOTCELL_AGENT_DISK=50GiB", "ROOTCELL_FIREWALL_CPUS=5", "ROOTCELL_GUEST_PACKAGES=jq, gh", "ROOTCELL_LIMACTL=/x", "ROOTCELL_PROVIDER=", "AGENT_CPUS=9"},
		Overrides: []Override{
			{Flag: "--cpus", Key: "firewall.cpus", Value: "6"},
			{Flag: "--packages", Key: "guest.packages", Value: "gh"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		value  any
		origin Origin
	}
	want := map[string]row{
		"agent.cpus":      {3, Origin{Project, project, 3, 8}},
		"agent.memory":    {"4GiB", Origin{Instance, instance, 3, 10}},
		"agent.disk":      {"50GiB", Origin{Source: Environment, Name: "ROOTCELL_AGENT_DISK"}},
		"firewall.cpus":   {6, Origin{Source: Flag, Name: "--cpus"}},
		"firewall.memory": {"192MiB", Origin{Source: BuiltIn}},
		"guest.packages":  {[]string{"gh"}, Origin{Source: Flag, Name: "--packages"}},
		"lima.limactl":    {"/x", Origin{Source: Environment, Name: "ROOTCELL_LIMACTL"}},
		"provider":        {"auto", Origin{Source: BuiltIn}},
		"secrets.A":       {"env", Origin{Project, project, 9, 5}},
		"secrets.B":       {"env", Origin{Instance, instance, 8, 5}},
	}
	settings := map[string]row{}
	for _, s := range got.Settings() {
		if _, asked := want[s.Key]; asked {
			settings[s.Key] = row{s.Value, s.Origin}
		}
	}
	if diff := cmp.Diff(want, settings, cmp.AllowUnexported(row{})); diff != "" {
		t.Errorf("unexpected values or origins (-want +got):\n%s", diff)
	}
	if got.Secrets["B"].Reference != "C" {
		t.Errorf("secret B comes from %q, want the instance's C", got.Secrets["B"].Reference)
	}
}

func TestMissingFilesAreEmpty(t *testing.T) {
	got, err := Load(Sources{Project: "/does/not/exist.toml", Instance: filepath.Join(t.TempDir(), "rootcell.toml")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got, compareConfig); diff != "" {
		t.Errorf("unexpected configuration (-want +got):\n%s", diff)
	}
}

func TestABrokenValueKeepsTheLowerLayer(t *testing.T) {
	project := write(t, "project.toml", "schema = 1\n[agent]\ncpus = 3\n")
	instance := write(t, "instance.toml", "schema = 1\nprovider = \"qemu\"\n[agent]\ncpus = \"many\"\n")
	got, err := Load(Sources{Project: project, Instance: instance})
	if problems := (Problems)(nil); !errors.As(err, &problems) || len(problems) != 1 {
		t.Fatalf("Load = %v, want one problem", err)
	}
	if got.Agent.CPUs != 3 || got.Provider != "qemu" {
		t.Errorf("cpus = %d, provider = %q; want the project's 3 and the instance's qemu", got.Agent.CPUs, got.Provider)
	}
}

func TestUnreadableFilesAreProblems(t *testing.T) {
	directory := t.TempDir()
	huge := write(t, "huge.toml", strings.Repeat("# filler\n", maxFileBytes/8))
	for name, path := range map[string]string{"a directory": directory, "a huge file": huge} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(Sources{Instance: path})
			if err == nil || !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("Load = %v, want a problem with %s", err, path)
			}
		})
	}
}

func TestResolvedValues(t *testing.T) {
	c := Default()
	if got := c.ResolvedProvider("darwin") + " " + c.ResolvedProvider("linux"); got != "lima qemu" {
		t.Errorf("providers = %s", got)
	}
	if got := c.ResolvedSystem("arm64") + " " + c.ResolvedSystem("amd64"); got != "aarch64-linux x86_64-linux" {
		t.Errorf("systems = %s", got)
	}
	c.Provider, c.Guest.System = "aws-ec2", "aarch64-linux"
	if got := c.ResolvedProvider("darwin") + " " + c.ResolvedSystem("amd64"); got != "aws-ec2 aarch64-linux" {
		t.Errorf("fixed values = %s", got)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(annotated))
	f.Add([]byte(everything))
	f.Add([]byte("schema=1\na.\"b.c\"=[[1],{d=2}]\n[[x]]\ny=[\n1,\n]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		err := Check("rootcell.toml", text)
		var problems Problems
		if err != nil && !errors.As(err, &problems) {
			t.Fatalf("Check = %T, want Problems", err)
		}
		lines := strings.Count(string(text), "\n") + 1
		for _, p := range problems {
			if p.File == "rootcell.toml" && p.Line > lines {
				t.Errorf("%v is beyond the last line %d", p, lines)
			}
		}
	})
}
