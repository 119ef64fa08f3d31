package provider

import "time"

// State is what a machine does.
type State string

// The states of a machine.
const (
	StateMissing    State = "missing"    // the provider has nothing for it
	StateStopped    State = "stopped"    // it exists and was stopped, by Stop or by shutting itself down
	StateRunning    State = "running"    // its CPUs run
	StateUnexpected State = "unexpected" // it should run and does not, or is not as it was started; Detail says more
)

// Status is what a cell does now.
type Status struct {
	Agent    MachineStatus `json:"agent"`
	Firewall MachineStatus `json:"firewall"`

	Accel       string `json:"accel,omitempty"`       // how CPUs are run: `kvm`, `hvf`, `tcg`; empty before the first start
	AccelReason string `json:"accelReason,omitempty"` // why that, for people
	Endpoint    string `json:"endpoint,omitempty"`    // where DialFirewall leads, for people; empty when not known
}

// MachineStatus is what one machine does now.
type MachineStatus struct {
	State  State  `json:"state"`
	Detail string `json:"detail,omitempty"` // one line for people; always there for StateUnexpected

	// BootID differs between two starts of the machine and is empty when it does
	// not run. A reboot from within the guest keeps it.
	BootID  string    `json:"bootId,omitempty"`
	Started time.Time `json:"started,omitzero"` // zero when it does not run

	// Outdated is set when the machine runs from another image than the applied
	// Spec names, because its disk was made from that one.
	Outdated bool `json:"outdated,omitempty"`
}

// Machine returns the status of a role, the zero value for any other role.
func (s Status) Machine(role Role) MachineStatus {
	switch role {
	case RoleAgent:
		return s.Agent
	case RoleFirewall:
		return s.Firewall
	}
	return MachineStatus{}
}
