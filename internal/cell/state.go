package cell

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

const stateSchema = 1

// State is what was allocated for an instance. It is never recalculated from
// the configuration.
type State struct {
	SchemaVersion int          `json:"schemaVersion"`
	ID            string       `json:"id"` // random, 32 hex digits; tells instances of the same name apart
	Created       time.Time    `json:"created"`
	Subnet        netip.Prefix `json:"subnet"`
	FirewallIP    netip.Addr   `json:"firewallIP"`
	AgentIP       netip.Addr   `json:"agentIP"`

	// Provider is the provider that owns v/, "" until machines were first
	// applied and after they were removed.
	Provider string `json:"provider,omitempty"`
	// Applied is the digest of the specification the machines were last
	// brought to, "" when unknown.
	Applied string `json:"applied,omitempty"`
	// Configured is the digest of the configuration they were brought to.
	Configured string `json:"configured,omitempty"`
	// Provisioned is the digest of the steps last completed in the agent's
	// present disk, "" when a provisioning is due.
	Provisioned string `json:"provisioned,omitempty"`
	// Images are the files of guest images that the machines may be using.
	Images    []string   `json:"images,omitempty"`
	LastError *LastError `json:"lastError,omitempty"`
}

// LastError is the last failure of a command that changed the instance.
type LastError struct {
	Time    time.Time `json:"time"`
	Command string    `json:"command"`
	Text    string    `json:"text"`
}

// readState reads state.json in dir; fs.ErrNotExist when there is none.
func readState(dir string) (State, error) {
	path := filepath.Join(dir, stateFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return State{}, fmt.Errorf("reading instance state: %w", err)
	}
	var head struct {
		SchemaVersion int `json:"schemaVersion"`
	}
	advice := "restore it from a backup, or move the instance directory away and start afresh"
	if err := json.Unmarshal(text, &head); err != nil {
		return State{}, fmt.Errorf("reading instance state %q: %w; %s", path, err, advice)
	}
	if head.SchemaVersion > stateSchema {
		return State{}, fmt.Errorf("reading instance state %q: schema version %d is newer than this rootcell knows (%d); use a newer rootcell", path, head.SchemaVersion, stateSchema)
	}
	var s State
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return State{}, fmt.Errorf("reading instance state %q: %w; %s", path, err, advice)
	}
	if err := s.check(); err != nil {
		return State{}, fmt.Errorf("reading instance state %q: %w; %s", path, err, advice)
	}
	return s, nil
}

func (s State) check() error {
	if s.SchemaVersion != stateSchema {
		return fmt.Errorf("schema version is %d, not %d", s.SchemaVersion, stateSchema)
	}
	return checkAddresses(s.Subnet, s.FirewallIP, s.AgentIP)
}

func checkAddresses(subnet netip.Prefix, firewall, agent netip.Addr) error {
	switch {
	case !subnet.IsValid() || !subnet.Addr().Is4() || subnet.Bits() != 24 || subnet != subnet.Masked() || !subnet.Addr().IsPrivate():
		return fmt.Errorf("subnet %v is not a private IPv4 /24", subnet)
	case !subnet.Contains(firewall) || !subnet.Contains(agent):
		return fmt.Errorf("addresses %v and %v are not both in subnet %v", firewall, agent, subnet)
	case firewall == agent:
		return fmt.Errorf("firewall and agent share the address %v", agent)
	}
	for _, a := range []netip.Addr{firewall, agent} {
		if last := a.As4()[3]; last == 0 || last == 255 {
			return fmt.Errorf("address %v is the network or broadcast address of %v", a, subnet)
		}
	}
	return nil
}

func writeState(dir string, s State) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding instance state: %w", err)
	}
	return writeFile(filepath.Join(dir, stateFile), append(text, '\n'), 0o600)
}

// states reads the state of every instance. Instances without a state yet are
// left out.
func (r Root) states() (map[string]State, error) {
	names, err := r.Instances()
	if err != nil {
		return nil, err
	}
	all := make(map[string]State, len(names))
	for _, name := range names {
		s, err := readState(r.InstanceDir(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[name] = s
	}
	return all, nil
}
