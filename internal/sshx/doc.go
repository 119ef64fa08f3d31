// Package sshx is rootcell's SSH client: from the host to the firewall, and
// through the firewall to the agent. It runs commands with streams or a
// terminal, forwards ports, copies files and writes an OpenSSH configuration
// for other programs.
//
// Both guests are hostile as far as this package is concerned. A connection
// accepts exactly one pinned host key, never one seen for the first time, and
// no channel that the server opens: there is no agent forwarding, no X11 and no
// listening on the server's behalf, so a guest cannot start anything on the host
// through its session.
package sshx
