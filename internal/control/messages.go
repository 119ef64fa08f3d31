package control

import "time"

// Status is what the daemon says about itself.
type Status struct {
	SchemaVersion int    `json:"schemaVersion"`
	Instance      string `json:"instance"`
	Version       string `json:"version"` // of the daemon's build
	// Generation numbers the policy in force; every change of it adds one.
	Generation uint64    `json:"generation"`
	Started    time.Time `json:"started"`
	// Policy says for each kind (dns, https, ssh) which file is in force.
	Policy map[string]PolicyStatus `json:"policy"`
	Grants []Grant                 `json:"grants"`
	Flows  Flows                   `json:"flows"`
	Audit  AuditStatus             `json:"audit"`
	Memory MemoryStatus            `json:"memory"`
	CA     CAStatus                `json:"ca"`
}

// PolicyStatus is the state of one rule file.
type PolicyStatus struct {
	File  string `json:"file"`
	Rules int    `json:"rules"`
	// SHA256 is the hash of the text in force, in hex, empty when no text is: then
	// everything of the kind is denied.
	SHA256 string `json:"sha256"`
	// Error says why the file on disk is not in force, empty when it is.
	Error string `json:"error,omitempty"`
}

// Grant is a rule that ends by itself.
type Grant struct {
	Kind    string    `json:"kind"`
	Line    string    `json:"line"`
	Expires time.Time `json:"expires"`
}

// Flows counts what is open at the moment.
type Flows struct {
	HTTPS int `json:"https"`
	SSH   int `json:"ssh"`
}

// AuditStatus is the state of the audit log.
type AuditStatus struct {
	Path string `json:"path"`
	// Written and Dropped count events since the start: those in the file, and those
	// that a full, failing or slow disk lost.
	Written uint64 `json:"written"`
	Dropped uint64 `json:"dropped"`
	// Error is what the disk says, empty while writing works.
	Error string `json:"error,omitempty"`
}

// MemoryStatus is the daemon's memory, in bytes.
type MemoryStatus struct {
	Heap  uint64 `json:"heap"`
	Limit int64  `json:"limit"`
}

// CAStatus identifies the authority that mints the agent's certificates.
type CAStatus struct {
	// SHA256 is the fingerprint of the CA certificate, in hex.
	SHA256  string    `json:"sha256"`
	Expires time.Time `json:"expires"`
}

// ReloadResult is what a reload, a grant or a revocation did.
type ReloadResult struct {
	SchemaVersion int `json:"schemaVersion"`
	// Generation is that of the policy now in force.
	Generation uint64 `json:"generation"`
	// Changed has an entry for each kind whose rules changed.
	Changed map[string]Change `json:"changed"`
	// Problems are what is wrong with the files on disk. A file with an error was
	// refused and its kind is unchanged; a file with warnings only is in force.
	Problems []Problem `json:"problems"`
	// Revoked counts open connections that the new policy does not allow and that
	// were closed.
	Revoked int `json:"revoked"`
}

// Change lists rules by their text.
type Change struct {
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
}

// Problem is one error or warning of a rule file. Line and Column count from 1; 0
// means the file as a whole.
type Problem struct {
	Kind   string `json:"kind"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	What   string `json:"what"`
	Hint   string `json:"hint,omitempty"`
	// Warning marks a file that works, but perhaps not as it was meant.
	Warning bool `json:"warning,omitempty"`
}
