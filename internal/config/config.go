// Package config reads rootcell.toml: the built-in defaults, the project's
// file, the instance's file, the environment and the command line, each
// overriding the one before, into one validated Config that remembers where
// every value came from.
//
// Nothing but the values is decided here: "auto" stays "auto" until a caller
// asks for what it means on a machine.
package config

import (
	"net/netip"
	"time"
)

// Schema is the only value of the required key `schema` that is understood.
const Schema = 1

// Auto is the value that leaves a choice to the machine.
const Auto = "auto"

// Sizes for machine and disk fields, in bytes.
const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// Config is the whole configuration of one instance. The zero value is not
// usable; Default and Load return usable ones. It is never changed after Load
// and may be read concurrently.
type Config struct {
	Provider        string // Auto, lima, qemu or aws-ec2; ResolvedProvider decides
	Guest           Guest
	Agent           Machine
	Firewall        Machine
	Network         Network
	Policy          Policy
	Secrets         map[string]Secret         // by the agent's environment variable
	SecretProviders map[string]SecretProvider // by id; see Config.SecretProvider
	Lima            Lima
	AWS             AWS
	QEMU            QEMU
	Spy             Spy

	origins map[string]Origin // by dotted key; absent means built-in
}

// Guest says what runs in the agent machine.
type Guest struct {
	OS       string   // Auto, nixos or debian
	System   string   // Auto, aarch64-linux or x86_64-linux; ResolvedSystem decides
	User     string   // the agent's login
	Harness  []string // coding harnesses to install: pi, claude, codex
	Packages []string // further packages of the guest's distribution
}

// Machine is the size of one machine.
type Machine struct {
	CPUs   int
	Memory int64 // bytes, whole MiB
	Disk   int64 // bytes, whole MiB
}

// Network says which /24 the cell uses. FirewallIP and AgentIP are both valid
// or both the zero Addr, which means that a subnet is taken from the pool.
type Network struct {
	PoolFirst  netip.Addr // network address of the first /24
	PoolLast   netip.Addr // network address of the last /24
	FirewallIP netip.Addr
	AgentIP    netip.Addr
}

// Pinned reports whether the addresses are fixed by configuration.
func (n Network) Pinned() bool { return n.FirewallIP.IsValid() && n.AgentIP.IsValid() }

// Policy holds what the firewall daemon is told besides its allowlists.
type Policy struct {
	DenyStyle    string           // explain or reset
	Resolvers    []netip.AddrPort // empty: the provider's own resolver
	AllowPrivate []netip.Prefix   // special addresses an allowed name may resolve to
	// UpstreamRoots is the absolute path of a PEM file on the host that replaces the public roots; "" keeps them.
	UpstreamRoots string
}

// Secret says where the value of one environment variable comes from.
type Secret struct {
	Provider  string  // an id that Config.SecretProvider knows
	Reference string  // opaque to rootcell; may contain colons
	Broker    *Broker // nil: the agent gets the value itself
}

// Broker names the one place where the firewall replaces a placeholder.
type Broker struct {
	Host   string // normalised host name
	Header string // lower-case header name
}

// SecretProvider is one configured source of secrets.
type SecretProvider struct {
	Kind    string   // macos-keychain, secret-service, aws-secrets-manager, command, env
	Profile string   // aws-secrets-manager: named profile, "" for the AWS rules
	Region  string   // aws-secrets-manager: region, "" for the AWS rules
	Command []string // command: program and arguments, the reference is appended
}

// Lima configures the lima provider.
type Lima struct {
	Limactl string // program name or path
}

// AWS configures the aws-ec2 provider.
type AWS struct {
	Profile      string
	Region       string
	ControlCIDR  string // Auto, or the one IPv4 network that may reach the firewall's SSH
	AgentType    string
	FirewallType string
	AMIOwner     string // account id
	AMIName      string // pattern
	Terraform    string // program name or path
}

// QEMU configures the qemu provider.
type QEMU struct {
	Binary string // "" for the system emulator of the guest's architecture
	Accel  string // Auto, kvm, hvf or tcg
}

// Spy configures the capture of model traffic.
type Spy struct {
	Enabled   bool
	Retention time.Duration
	MaxBytes  int64 // bytes
}

// Default returns the built-in configuration. The sizes are for a laptop; a
// machine that emulates in software manages with them too.
func Default() Config {
	return Config{
		Provider: Auto,
		Guest: Guest{
			OS:      Auto,
			System:  Auto,
			User:    "agent",
			Harness: []string{"pi"},
		},
		Agent:    Machine{CPUs: 2, Memory: 2 * gib, Disk: 20 * gib},
		Firewall: Machine{CPUs: 1, Memory: 192 * mib, Disk: 512 * mib},
		Network: Network{
			PoolFirst: netip.AddrFrom4([4]byte{192, 168, 100, 0}),
			PoolLast:  netip.AddrFrom4([4]byte{192, 168, 254, 0}),
		},
		Policy: Policy{DenyStyle: "explain"},
		Lima:   Lima{Limactl: "limactl"},
		AWS: AWS{
			ControlCIDR:  Auto,
			AgentType:    "t4g.2xlarge",
			FirewallType: "t4g.small",
			AMIOwner:     "427812963091",
			AMIName:      "nixos/25.11*",
			Terraform:    "tofu",
		},
		QEMU: QEMU{Accel: Auto},
		Spy:  Spy{Retention: 7 * 24 * time.Hour, MaxBytes: gib},
	}
}

// ResolvedProvider is the provider that the configuration means on a host
// whose operating system is goos (a runtime.GOOS).
func (c Config) ResolvedProvider(goos string) string {
	switch {
	case c.Provider != Auto:
		return c.Provider
	case goos == "darwin":
		return "lima"
	default:
		return "qemu"
	}
}

// ResolvedSystem is the guest system that the configuration means on a host
// of architecture goarch (a runtime.GOARCH).
func (c Config) ResolvedSystem(goarch string) string {
	switch {
	case c.Guest.System != Auto:
		return c.Guest.System
	case goarch == "arm64":
		return "aarch64-linux"
	default:
		return "x86_64-linux"
	}
}

// SecretProvider returns the provider with this id. Kinds that need no
// settings are providers under their own name without being configured.
func (c Config) SecretProvider(id string) (SecretProvider, bool) {
	if p, ok := c.SecretProviders[id]; ok {
		return p, true
	}
	switch id {
	case kindKeychain, kindSecretService, kindAWS, kindEnv:
		return SecretProvider{Kind: id}, true
	}
	return SecretProvider{}, false
}
