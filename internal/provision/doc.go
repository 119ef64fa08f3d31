// Package provision brings a Debian agent to the desired state, as named steps
// that may be repeated: each looks first and changes only what differs.
//
// A guest's init has done what a machine needs to be itself before anybody
// logs in (user, network, CA, guidance). What remains is what comes from the
// host or takes long: the host's Git identity, files for the harnesses, the
// agent's own SSH key, packages. All steps travel as one shell script over one
// SSH session, since a session costs a good part of a second on an emulated
// machine, and what takes long is only started by it and goes on in the
// background.
package provision
