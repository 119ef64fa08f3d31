package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"path/filepath"
)

// Role names one of the two machines of a cell.
type Role string

// The roles.
const (
	RoleAgent    Role = "agent"
	RoleFirewall Role = "firewall"
)

// CellID names a cell and the place on the host where its provider keeps what
// it needs.
type CellID struct {
	Instance string // instance name, as in SPEC 2
	Dir      string // absolute path of the instance's v/ directory; made 0700 when missing
}

// Spec is the desired state of a cell.
type Spec struct {
	ID       CellID
	Agent    Machine
	Firewall Machine

	// Arch is the guests' architecture as Go spells it, `amd64` or `arm64`.
	// Empty means the host's.
	Arch string

	// Accel chooses how the CPUs are run: `auto` (or empty), `kvm`, `hvf` or
	// `tcg`. Providers without a choice ignore it.
	Accel string
}

// Machine is the desired state of one machine.
type Machine struct {
	Name        string // as shown by `rootcell list`; also the process's name
	CPUs        int    // at least 1
	MemoryBytes int64
	DiskBytes   int64 // agent: size of its root disk; firewall: of its log disk

	Kernel  string // path of the kernel
	Initrd  string // path of the initial RAM file system
	Image   string // agent: path of the root disk's read-only base; firewall: empty
	Cmdline string // added to the kernel command line; console and root disk are named by the provider

	// Config is handed to the guest as guest.json at each start. It may hold
	// keys: a provider keeps it readable for the owner alone.
	Config []byte

	// ConfigHash tells whether a running machine has to be restarted for
	// Config to take effect: only when it differs from that of the machine's
	// start. Empty means the hash of Config itself.
	ConfigHash string
}

// EffectiveConfigHash is ConfigHash, or the hash of Config where it is empty.
func (m Machine) EffectiveConfigHash() string {
	if m.ConfigHash != "" {
		return m.ConfigHash
	}
	sum := sha256.Sum256(m.Config)
	return hex.EncodeToString(sum[:])
}

// Machine returns the machine of a role. It panics on any other role, which
// would be a bug of the caller.
func (s Spec) Machine(role Role) Machine {
	switch role {
	case RoleAgent:
		return s.Agent
	case RoleFirewall:
		return s.Firewall
	}
	panic(fmt.Sprintf("provider: no role %q", role))
}

// Validate reports the first thing about s that no provider can run.
func (s Spec) Validate() error {
	if err := s.ID.Validate(); err != nil {
		return err
	}
	switch s.Arch {
	case "", "amd64", "arm64":
	default:
		return fmt.Errorf("checking the cell %q: architecture %q is neither amd64 nor arm64", s.ID.Instance, s.Arch)
	}
	switch s.Accel {
	case "", "auto", "kvm", "hvf", "tcg":
	default:
		return fmt.Errorf("checking the cell %q: acceleration %q is none of auto, kvm, hvf, tcg", s.ID.Instance, s.Accel)
	}
	for _, role := range []Role{RoleFirewall, RoleAgent} {
		m := s.Machine(role)
		switch {
		case m.Name == "":
			return fmt.Errorf("checking the %s of cell %q: it has no name", role, s.ID.Instance)
		case m.CPUs < 1:
			return fmt.Errorf("checking the %s of cell %q: %d CPUs; at least 1 is needed", role, s.ID.Instance, m.CPUs)
		case m.MemoryBytes < 64<<20:
			return fmt.Errorf("checking the %s of cell %q: %d bytes of memory; at least 64 MiB are needed", role, s.ID.Instance, m.MemoryBytes)
		case m.DiskBytes < 1<<20:
			return fmt.Errorf("checking the %s of cell %q: %d bytes of disk; at least 1 MiB is needed", role, s.ID.Instance, m.DiskBytes)
		}
	}
	return nil
}

// Validate reports what makes id unusable.
func (id CellID) Validate() error {
	if id.Instance == "" {
		return fmt.Errorf("checking a cell: it has no instance name")
	}
	if !filepath.IsAbs(id.Dir) {
		return fmt.Errorf("checking the cell %q: its directory %q is not an absolute path", id.Instance, id.Dir)
	}
	return nil
}

// NIC names one of the network interfaces of a cell's machines, as the guests
// name them too.
type NIC string

// The interfaces. The agent has NICCell and no other.
const (
	NICCell   NIC = "cell"   // the private link between agent and firewall
	NICUplink NIC = "uplink" // the firewall's way out
)

// MAC returns the hardware address of a machine's interface: the same for every
// start of an instance, locally administered, unicast. Guests find their
// interfaces by it.
func MAC(instance string, role Role, nic NIC) net.HardwareAddr {
	sum := sha256.Sum256([]byte("rootcell mac\x00" + instance + "\x00" + string(role) + "\x00" + string(nic)))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02 // Invariant: locally administered and not multicast (TestMACIsLocalAndStable).
	return mac
}
