// Package cell holds what rootcell does: one file per verb, over the state of
// one instance.
//
// # Instances
//
// An instance is a directory below the state root (see [FindRoot]):
//
//	rootcell.toml    this instance's configuration
//	proxy/           the three live allowlists
//	pki/             the CA of this instance, key 0600
//	ssh/             control key, host keys of both machines, generated config
//	state.json       what was allocated: subnet, addresses, ids
//	v/               what the provider owns
//	lock             flock(2) held by the command that is changing the instance
//
// Directories are 0700 and files 0600. A directory is an instance as soon as
// it holds state.json or rootcell.toml.
//
// # Being killed anywhere
//
// Every step is idempotent and every file is replaced as a whole (write, fsync,
// rename, fsync of the directory), so a command that was killed leaves either
// the old state or the new one, and the next command continues from there. A
// step that makes several files (CA, key pair) writes the one that marks it
// complete last. Locks are flock locks: they end with the process that held
// them, whatever is left in the lock file.
//
// # Who may do what at the same time
//
// Commands that change an instance hold its lock; commands that only read do
// not wait for anybody. A session in the agent holds no lock. Subnets are given
// out under a lock of the state root.
package cell
