package config

import (
	"strings"
)

// key is one setting with a fixed name. Everything that is done with settings
// (reading files, environment and flags, showing origins, writing defaults)
// goes through this table, so that a setting is added in one place.
type key struct {
	path string
	env  string // the environment variable that overrides it
	list bool   // in the environment and in flags, elements are comma-separated
	// set checks a decoded TOML value and stores it.
	set func(*Config, any) []indexed
	// get returns the value as JSON shows it, which is what set accepts.
	get func(*Config) any
}

// indexed is a fault in element index of a list, or in the whole value when
// index is negative.
type indexed struct {
	index int
	fault
}

// keys returns the settings in the order in which they are documented.
func keys() []key {
	return []key{
		word("provider", func(c *Config) *string { return &c.Provider }, oneOf(Auto, "lima", "qemu", "aws-ec2")),

		word("guest.os", func(c *Config) *string { return &c.Guest.OS }, oneOf(Auto, "nixos", "debian")),
		word("guest.system", func(c *Config) *string { return &c.Guest.System }, oneOf(Auto, "aarch64-linux", "x86_64-linux")),
		word("guest.user", func(c *Config) *string { return &c.Guest.User }, userName),
		words("guest.harness", func(c *Config) *[]string { return &c.Guest.Harness }, oneOf("pi", "claude", "codex")),
		words("guest.packages", func(c *Config) *[]string { return &c.Guest.Packages }, packageName),

		number("agent.cpus", func(c *Config) *int { return &c.Agent.CPUs }, 1, 256),
		size("agent.memory", func(c *Config) *int64 { return &c.Agent.Memory }, 512*mib, mib),
		size("agent.disk", func(c *Config) *int64 { return &c.Agent.Disk }, 4*gib, mib),
		number("firewall.cpus", func(c *Config) *int { return &c.Firewall.CPUs }, 1, 64),
		size("firewall.memory", func(c *Config) *int64 { return &c.Firewall.Memory }, 128*mib, mib),
		size("firewall.disk", func(c *Config) *int64 { return &c.Firewall.Disk }, 64*mib, mib),

		pool("network.pool"),
		address("network.firewall_ip", func(c *Config) *addr { return &c.Network.FirewallIP }),
		address("network.agent_ip", func(c *Config) *addr { return &c.Network.AgentIP }),

		word("policy.deny_style", func(c *Config) *string { return &c.Policy.DenyStyle }, oneOf("explain", "reset")),
		resolvers("policy.resolvers"),
		prefixes("policy.allow_private"),
		word("policy.upstream_roots", func(c *Config) *string { return &c.Policy.UpstreamRoots }, absoluteOrEmpty),

		word("lima.limactl", func(c *Config) *string { return &c.Lima.Limactl }, program).from("ROOTCELL_LIMACTL"),

		word("aws.profile", func(c *Config) *string { return &c.AWS.Profile }, plain),
		word("aws.region", func(c *Config) *string { return &c.AWS.Region }, region),
		word("aws.control_cidr", func(c *Config) *string { return &c.AWS.ControlCIDR }, controlCIDR),
		word("aws.agent_type", func(c *Config) *string { return &c.AWS.AgentType }, instanceType),
		word("aws.firewall_type", func(c *Config) *string { return &c.AWS.FirewallType }, instanceType),
		word("aws.ami_owner", func(c *Config) *string { return &c.AWS.AMIOwner }, accountID),
		word("aws.ami_name", func(c *Config) *string { return &c.AWS.AMIName }, nonEmpty),
		word("aws.terraform", func(c *Config) *string { return &c.AWS.Terraform }, program).from("ROOTCELL_TERRAFORM"),

		word("qemu.binary", func(c *Config) *string { return &c.QEMU.Binary }, plain),
		word("qemu.accel", func(c *Config) *string { return &c.QEMU.Accel }, oneOf(Auto, "kvm", "hvf", "tcg")),

		flag("spy.enabled", func(c *Config) *bool { return &c.Spy.Enabled }),
		period("spy.retention", func(c *Config) *duration { return &c.Spy.Retention }),
		size("spy.max_bytes", func(c *Config) *int64 { return &c.Spy.MaxBytes }, mib, 1),
	}
}

// from names an environment variable that does not follow the rule.
func (k key) from(env string) key {
	k.env = env
	return k
}

// variable is the environment variable of a key: ROOTCELL_AGENT_MEMORY for
// agent.memory.
func variable(path string) string {
	return "ROOTCELL_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// Keys returns the dotted names of every setting that a flag, an environment
// variable or Set may change, in the order in which they are documented.
func Keys() []string {
	var names []string
	for _, k := range keys() {
		names = append(names, k.path)
	}
	return names
}
