// Package guestcfg is the versioned document that the host hands to a guest at
// boot: who it is, its addresses, its keys, and what its role needs besides.
//
// The host renders one document for each machine and passes it on the
// hypervisor's firmware configuration device; the guest's init reads it before
// anything else runs. Encode and Decode are strict and check the same things,
// so that a document one side accepts is never half understood by the other:
// an unknown key, another schema, a missing address or a role without its part
// is an error, and a guest that cannot read its document stays closed.
package guestcfg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Schema is the only version of the document that this build reads and writes.
const Schema = 1

// FirmwareName is the name under which QEMU passes the document to a guest:
// -fw_cfg name=opt/rootcell/guest.json,file=PATH.
const FirmwareName = "opt/rootcell/guest.json"

// MaxBytes bounds an encoded document. The three allowlists are its only part
// that grows, and policyfile bounds each of them more tightly.
const MaxBytes = 16 << 20

// The two roles of a guest.
const (
	RoleAgent    = "agent"
	RoleFirewall = "firewall"
)

// The names that a guest gives its network interfaces, found by MAC address.
const (
	InterfaceCell   = "cell"
	InterfaceUplink = "uplink"
)

// Secret is text that never shows itself in logs or formatted output. It is
// encoded in the document as it is.
type Secret string

// String hides the text.
func (Secret) String() string { return "[redacted]" }

// GoString hides the text from %#v.
func (Secret) GoString() string { return "[redacted]" }

// LogValue hides the text from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// Reveal returns the text.
func (s Secret) Reveal() string { return string(s) }

// Config is the whole document. Exactly one of Firewall and Agent is set, the
// one that Role names.
type Config struct {
	Schema   int    `json:"schema"`
	Role     string `json:"role"`     // RoleAgent or RoleFirewall
	Instance string `json:"instance"` // instance name, e.g. "default"
	Hostname string `json:"hostname"` // one DNS label

	Network Network `json:"network"`
	SSH     SSH     `json:"ssh"`

	Firewall *Firewall `json:"firewall,omitempty"`
	Agent    *Agent    `json:"agent,omitempty"`
}

// Network says which interfaces the guest has. The agent has Cell only.
type Network struct {
	Cell   Interface  `json:"cell"`
	Uplink *Interface `json:"uplink,omitempty"` // firewall only

	// PeerAddress and PeerMAC are the other machine of the cell: the agent's
	// for the firewall, the firewall's for the agent. The firewall pins its
	// neighbour entry to them.
	PeerAddress string `json:"peer_address"`
	PeerMAC     string `json:"peer_mac"`
}

// Interface is one network card and its static IPv4 configuration.
type Interface struct {
	MAC     string `json:"mac"`               // aa:bb:cc:dd:ee:ff
	Address string `json:"address"`           // with prefix: 192.168.100.10/24
	Gateway string `json:"gateway,omitempty"` // default route, empty for none
	MTU     int    `json:"mtu,omitempty"`     // bytes; 0 leaves the device's default
}

// SSH is the guest's own SSH server: its pinned host key and who may log in.
type SSH struct {
	HostKey        Secret   `json:"host_key"`        // ed25519, OpenSSH PEM, no passphrase
	AuthorizedKeys []string `json:"authorized_keys"` // authorized_keys lines
}

// Firewall is what only the firewall guest gets.
type Firewall struct {
	TOML   string            `json:"toml"`    // firewall.toml for rootcell-firewall
	CACert string            `json:"ca_cert"` // PEM
	CAKey  Secret            `json:"ca_key"`  // PEM
	Policy map[string]string `json:"policy"`  // file name → text
	// UpstreamRoots (PEM) verify servers instead of the public roots; empty keeps those.
	UpstreamRoots string `json:"upstream_roots,omitempty"`
}

// Agent is what only the agent guest gets. It holds nothing secret besides the
// host key: the CA's private key never enters an agent.
type Agent struct {
	User           string            `json:"user"`            // login name, uid 1000
	CACert         string            `json:"ca_cert"`         // PEM of the instance's CA
	ConnectAddress string            `json:"connect_address"` // ip:port of the firewall's CONNECT proxy for SSH
	Env            map[string]string `json:"env,omitempty"`   // additions to /etc/environment
}

// Encode checks c and returns its JSON text.
func Encode(c Config) ([]byte, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("encoding guest configuration: %w", err)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("encoding guest configuration: %w", err)
	}
	if buf.Len() > MaxBytes {
		return nil, fmt.Errorf("encoding guest configuration: %d bytes are more than the %d a guest reads", buf.Len(), MaxBytes)
	}
	return buf.Bytes(), nil
}

// Decode reads one document and checks it. Unknown keys, trailing text and
// another schema are errors.
func Decode(text []byte) (Config, error) {
	if len(text) > MaxBytes {
		return Config{}, fmt.Errorf("decoding guest configuration: %d bytes are more than %d", len(text), MaxBytes)
	}
	var version struct {
		Schema *int `json:"schema"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return Config{}, fmt.Errorf("decoding guest configuration: %w", err)
	}
	if version.Schema == nil || *version.Schema != Schema {
		return Config{}, fmt.Errorf("decoding guest configuration: schema is not %d; the guest image and rootcell differ in version, run `rootcell image build`", Schema)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var c Config
	if err := dec.Decode(&c); err != nil {
		return Config{}, fmt.Errorf("decoding guest configuration: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("decoding guest configuration: text after the document")
	}
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("decoding guest configuration: %w", err)
	}
	return c, nil
}
