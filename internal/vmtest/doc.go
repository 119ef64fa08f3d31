// Package vmtest runs whole cells on real machines, through the command line that a user types: the qemu provider, the
// Debian guests, the real firewall. The host they run on is a network namespace whose only other inhabitant is a recorded
// far side, so that what gets out of a cell is seen, and nothing leaves the machine.
package vmtest
