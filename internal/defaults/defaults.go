// Package defaults holds the allowlists that a new instance starts with: the
// hosts that Git hosting, package managers and language models need, each by
// its own name.
package defaults

import (
	_ "embed" // for the lists

	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

var (
	//go:embed allowed-dns.txt
	dns string
	//go:embed allowed-https.txt
	https string
	//go:embed allowed-ssh.txt
	ssh string
)

// Files returns the default list of every kind, under its own name.
func Files() policyfile.Files {
	return policyfile.Files{
		policy.KindDNS:   {Name: policyfile.DNSFile, Text: dns},
		policy.KindHTTPS: {Name: policyfile.HTTPSFile, Text: https},
		policy.KindSSH:   {Name: policyfile.SSHFile, Text: ssh},
	}
}
