package provision

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Desired is the state that an agent is brought to.
type Desired struct {
	GitName, GitEmail string   // of the host's user; "" leaves them alone
	Harness           []string // pi, claude, codex
	Packages          []string // further Debian packages
	Files             []byte   // tar archive for ~/.pi/agent; nil for none
	KeyComment        string   // of the agent's SSH key
}

// Step is one named part of the desired state.
type Step struct {
	Name   string
	Script string // for /bin/sh -eu, as the agent's user; idempotent
}

// Steps returns what brings an agent to the desired state, in order.
func Steps(d Desired) []Step {
	steps := []Step{sshKey(d.KeyComment), guidance(d.Harness)}
	if d.GitName != "" || d.GitEmail != "" {
		steps = append(steps, gitIdentity(d.GitName, d.GitEmail))
	}
	if d.Files != nil {
		steps = append(steps, harnessFiles(d.Files))
	}
	return append(steps, software(d.Harness, d.Packages))
}

// Digest identifies steps, to know whether an agent has been through them.
func Digest(steps []Step) string {
	h := sha256.New()
	for _, s := range steps {
		fmt.Fprintf(h, "%d %s%d %s", len(s.Name), s.Name, len(s.Script), s.Script)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Script is one text for `sh -s` that runs all steps. For each it prints a line
// `step NAME ok` or `step NAME failed` on standard output; what a failing step
// said goes to standard error. Its status is that of the first failure.
func Script(steps []Step) string {
	var b strings.Builder
	b.WriteString("status=0\n")
	for _, s := range steps {
		// A here-document with a quoted end is taken as it is; a subshell of
		// its own keeps a step from changing another one's directory or options.
		end := "ROOTCELL_" + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
		fmt.Fprintf(&b, "if sh -eu <<'%s'\n%s%s\nthen echo 'step %s ok'; else code=$?; [ \"$status\" -ne 0 ] || status=$code; echo 'step %s failed'; fi\n",
			end, withNewline(s.Script), end, s.Name, s.Name)
	}
	b.WriteString("exit $status\n")
	return b.String()
}

func withNewline(s string) string {
	if strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}

// quote makes s one word of a shell, whatever is in it.
//
// Invariant: values of the host become single words of the scripts that run in
// the agent (TestValuesAreQuoted).
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
