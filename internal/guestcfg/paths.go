package guestcfg

// Where things are in the firewall guest. The host renders firewall.toml with
// these names, and the guest's init puts the files there.
const (
	FirewallTOMLPath  = "/run/rootcell/firewall.toml"
	FirewallCACert    = "/run/rootcell/ca.pem"
	FirewallCAKey     = "/run/rootcell/ca.key"
	FirewallRoots     = "/run/rootcell/roots.pem" // only with Firewall.UpstreamRoots
	FirewallPolicyDir = "/var/lib/rootcell/policy"
	FirewallControl   = "/run/rootcell/control.sock"
	FirewallAuditPath = "/var/log/rootcell/audit.jsonl"
	FirewallDaemonUID = 900 // and gid, of the daemon's user `rootcell`
)

// LogDiskLabel is the label of the ext4 file system that holds the firewall's
// audit log across restarts. The guest makes it on the first start.
const LogDiskLabel = "rootcell-log"
