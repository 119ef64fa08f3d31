// Package probe is what `rootcell verify` asks of the two guests and what they
// answer: the boundary probes that run as root inside the agent
// (`rootcell-guest probe`, a Request on standard input, one Result a line on
// standard output), and the firewall's own view (its verb `probe`, a Firewall).
//
// Both sides matter. The agent's view is a claim of the machine that is being
// confined; the firewall's counters, and sinks of the host's, tell what really
// arrived.
package probe

// Schema is the version of Request and Result.
const Schema = 1

// Request is what the agent's probes need to know. Every address is IPv4.
type Request struct {
	Schema   int    `json:"schema"`
	Firewall string `json:"firewall"` // the firewall's address on the link
	CACert   string `json:"ca_cert"`  // PEM of this instance's CA

	// Host names of which the lists allow or deny the kind. An empty one leaves
	// its probe out (Skipped).
	AllowedDNS   string `json:"allowed_dns,omitempty"`
	AllowedHTTPS string `json:"allowed_https,omitempty"`
	AllowedSSH   string `json:"allowed_ssh,omitempty"`
	DeniedDNS    string `json:"denied_dns,omitempty"`
	DeniedHTTPS  string `json:"denied_https,omitempty"`
	DeniedSSH    string `json:"denied_ssh,omitempty"`

	// Unreachable are more ip:port that must not answer, such as sinks that
	// the host listens on and its addresses as the firewall sees them.
	Unreachable []string `json:"unreachable,omitempty"`
}

// Result is the outcome of one probe.
type Result struct {
	Name    string  `json:"name"` // stable, kebab-case
	OK      bool    `json:"ok"`   // the boundary held, or what should work works
	Skipped bool    `json:"skipped,omitempty"`
	Detail  string  `json:"detail"` // for people; one line
	Seconds float64 `json:"seconds"`
}

// Firewall is the firewall's view of itself.
type Firewall struct {
	Schema          int               `json:"schema"`
	IPForward       bool              `json:"ip_forward"`
	DropsByDefault  bool              `json:"drops_by_default"`  // input, forward and output of the ruleset
	Ruleset         string            `json:"ruleset,omitempty"` // why DropsByDefault is false
	Counters        map[string]uint64 `json:"counters"`          // packets of each named counter of table inet rootcell
	Listeners       []Listener        `json:"listeners"`
	LogDisk         string            `json:"log_disk"`          // "ext4", or "memory: " and why
	MemoryUsedBytes int64             `json:"memory_used_bytes"` // total minus available
	Programs        map[string]int    `json:"programs"`          // running processes by name
}

// Listener is a socket that accepts from the network.
type Listener struct {
	Network string `json:"network"` // tcp or udp
	Address string `json:"address"` // ip:port
}
