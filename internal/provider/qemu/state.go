package qemu

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// stateSchema is raised when state.json changes in a way that an older rootcell
// would misread.
const stateSchema = 1

// state is what the provider remembers of a cell, in state.json. What can be
// asked of the machines themselves is not in it.
type state struct {
	Schema      int     `json:"schema"`
	Port        int     `json:"sshPort,omitempty"` // of 127.0.0.1, leading to the firewall's port 22
	Accel       string  `json:"accel,omitempty"`   // what the machines were last started with
	AccelReason string  `json:"accelReason,omitempty"`
	Agent       machine `json:"agent"`
	Firewall    machine `json:"firewall"`
}

// machine is what is remembered of one machine.
type machine struct {
	UUID     string  `json:"uuid"`               // SMBIOS UUID, the same for every start
	Wanted   bool    `json:"wanted"`             // started by Apply and not stopped since
	HostBoot string  `json:"hostBoot,omitempty"` // boot id of the host at the latest start
	Launch   *launch `json:"launch,omitempty"`   // what the latest start was made with
	Disk     *disk   `json:"disk,omitempty"`     // what the disk was made from
	Wants    *source `json:"wants,omitempty"`    // agent: what the applied Spec names
}

// source is where a root disk and what boots it come from.
type source struct {
	Image  string `json:"image,omitempty"`
	Kernel string `json:"kernel,omitempty"`
}

// disk describes a machine's disk.
type disk struct {
	From  source `json:"from"`
	Bytes int64  `json:"bytes"`
}

// launch is what a start of a machine depends on. Two that are equal need no
// restart between them.
type launch struct {
	Name        string `json:"name"`
	Arch        string `json:"arch"`
	Accel       string `json:"accel"`
	Binary      string `json:"binary"`
	CPUs        int    `json:"cpus"`
	MemoryBytes int64  `json:"memoryBytes"`
	DiskBytes   int64  `json:"diskBytes"`
	Kernel      string `json:"kernel"`
	Initrd      string `json:"initrd"`
	Cmdline     string `json:"cmdline,omitempty"`
	ConfigHash  string `json:"configHash"`
}

func (s *state) machine(role provider.Role) *machine {
	if role == provider.RoleAgent {
		return &s.Agent
	}
	return &s.Firewall
}

// newState is the state of a cell that has nothing yet.
func newState() state {
	return state{Schema: stateSchema, Agent: machine{UUID: newUUID()}, Firewall: machine{UUID: newUUID()}}
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// load reads a cell's state. It wraps provider.ErrNotFound when there is none.
func load(id provider.CellID) (state, error) {
	name := dirOf(id).path(stateFile)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, fmt.Errorf("looking for the cell %q: %w", id.Instance, provider.ErrNotFound)
	}
	if err != nil {
		return state{}, fmt.Errorf("reading the state of cell %q: %w", id.Instance, err)
	}
	var st state
	if err := json.Unmarshal(data, &st); err != nil {
		return state{}, fmt.Errorf("reading %q: %w; remove the file and run rootcell again: disks are kept", name, err)
	}
	if st.Schema != stateSchema {
		return state{}, fmt.Errorf("reading %q: schema %d is not %d; use the rootcell that wrote it, or a newer one", name, st.Schema, stateSchema)
	}
	return st, nil
}

func (s *state) save(d dir) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the state of a cell: %w", err)
	}
	return d.writePrivate(stateFile, append(data, '\n'))
}
