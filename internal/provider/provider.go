package provider

import (
	"context"
	"errors"
	"net"
)

// ErrNotFound says that the cell was never applied, or was destroyed.
var ErrNotFound = errors.New("no such cell")

// ErrNotRunning says that the cell exists and the machine asked for does not
// run. The wrapping error tells what is known about why.
var ErrNotRunning = errors.New("machine is not running")

// Provider runs the machines of cells. The package documentation is its
// contract.
type Provider interface {
	// Plan tells what Apply would do for spec, without doing any of it.
	Plan(ctx context.Context, spec Spec) (Plan, error)

	// Apply converges the cell to spec: both machines exist, run, and have the
	// resources and configuration of spec. It returns when both were started;
	// that the guests answer is for DialFirewall to wait for. progress may be
	// nil. Apply returns ctx's error when cancelled and leaves a state that a
	// later Apply continues from.
	Apply(ctx context.Context, spec Spec, progress Progress) error

	// Status tells what the cell's machines do now. It asks the machines, not
	// only the provider's records.
	Status(ctx context.Context, id CellID) (Status, error)

	// DialFirewall opens a byte stream to the SSH server of the firewall. It
	// waits until that server has sent its first bytes (which the returned
	// connection delivers), until the firewall is known not to run
	// (ErrNotRunning), or until ctx ends. The caller closes the connection.
	DialFirewall(ctx context.Context, id CellID) (net.Conn, error)

	// Stop asks both machines to shut down, waits, and ends those that do not.
	// When ctx ends while it waits, they are ended at once. Disks stay.
	Stop(ctx context.Context, id CellID) error

	// Destroy ends both machines and removes everything the provider keeps for
	// the cell, disks included.
	Destroy(ctx context.Context, id CellID) error
}

// Preflighter is implemented by providers that can check the host.
type Preflighter interface {
	// Preflight checks what the provider needs of the host and returns one
	// finding for each thing checked, in a stable order.
	Preflight(ctx context.Context) []Finding
}

// ConsoleReader is implemented by providers that record serial consoles.
type ConsoleReader interface {
	// Console returns the last part of what the machine wrote to its serial
	// console since its latest start: at most 256 KiB, not escaped, written
	// by the guest and therefore not to be trusted. It is empty before the
	// first start, and ErrNotFound is as for Status.
	Console(ctx context.Context, id CellID, role Role) ([]byte, error)
}

// Resetter is implemented by providers that can throw the agent's disk away.
type Resetter interface {
	// ResetAgent ends the agent and drops its disk; the next Apply starts it
	// from the Image of its Spec. The firewall is not touched. It is nil for a
	// cell whose agent has no disk, and ErrNotFound is as for Status.
	ResetAgent(ctx context.Context, id CellID) error
}

// Step is one thing that Apply does.
type Step struct {
	Role Role   // the machine concerned; empty for the cell as a whole
	Text string // participle and object, lower case: `starting the agent (2 CPUs, 4 GiB)`
}

// Progress is told of each step when it begins. Calls are never concurrent.
type Progress func(Step)

// Plan is what Apply would do, in order.
type Plan struct {
	Steps []Step // empty when the cell is as specified
}

// Level grades a Finding.
type Level string

// The levels of a Finding.
const (
	LevelOK      Level = "ok"      // nothing to do
	LevelWarning Level = "warning" // works, with less speed or comfort
	LevelError   Level = "error"   // cells cannot run until it is mended
)

// Finding is the result of one check of the host.
type Finding struct {
	Name    string `json:"name"`              // what was checked: `qemu-system-x86_64`, `acceleration`
	Level   Level  `json:"level"`             // how bad it is
	Text    string `json:"text"`              // what was found
	Fix     string `json:"fix,omitempty"`     // what to do about it, a command where there is one
	Package string `json:"package,omitempty"` // the Debian package that mends it, to collect into one line
}
