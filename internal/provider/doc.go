// Package provider is the seam between rootcell and what runs its machines.
//
// A cell is two machines: the agent, whose only network link leads to the
// firewall, and the firewall, which alone has an uplink. A [Provider] takes the
// desired state of one cell as a [Spec] and converges to it; it decides nothing
// about policy, images, addresses or keys, which the caller puts into the Spec.
//
// # Isolation
//
// Whatever root in the agent does inside its guest, it must not reach anything
// but the firewall's end of the private link: no host service, no uplink, no
// other cell, no metadata address. A provider enforces this on the host's side
// of the link. It shares no file system, clipboard, vsock or similar channel
// with the agent, and the only byte stream into a cell is
// [Provider.DialFirewall].
//
// # Order of calls
//
// Apply comes first and may come again at any time. Plan, Status, DialFirewall,
// Stop and Destroy are legal at any time, before the first Apply too:
//
//   - Plan answers what Apply would do now; it has no side effects, on disk
//     neither.
//   - Status answers [ErrNotFound] until the first Apply has begun and after
//     Destroy.
//   - DialFirewall answers [ErrNotFound] likewise and [ErrNotRunning] when the
//     firewall does not run.
//   - Stop answers [ErrNotFound] likewise; it is nil for a cell that is stopped.
//   - Destroy is nil for a cell that does not exist.
//
// # Idempotence
//
// Apply with a Spec equal to the applied one changes nothing while both
// machines run: no machine is started again ([MachineStatus].BootID stays).
// With a different Spec it restarts the machines whose difference needs it and
// no other. A machine that died, or was killed behind the provider's back, is
// started again. Stop and Destroy may be repeated.
//
// What the agent wrote to its disk outlives Apply, Stop, crashes and changed
// Specs. Only Destroy and [Resetter].ResetAgent drop it. So a Spec that names
// another agent Image or Kernel does not touch an agent disk that exists: the
// agent keeps booting what its disk was made from, Status says so
// ([MachineStatus].Outdated), and ResetAgent followed by Apply takes the new one.
// A larger DiskBytes grows the disk at the agent's next start; a smaller one
// waits for ResetAgent. The firewall keeps nothing but its log disk, which stays as
// large as it was made, and otherwise always
// follows the Spec.
//
// [Machine].Config is made available to the guest at each start. A Config that
// differs under the same ConfigHash is stored for the next start and restarts
// nothing: that is how policy, pushed to the running firewall over SSH, survives
// the firewall's next start.
//
// # Crash safety
//
// The calling process may be killed, or its context cancelled, at any point of
// any call. The next Apply continues from whatever was left, and Destroy removes
// it. Machines outlive the process that started them; a provider value holds
// no state that a new one for the same CellID would miss.
//
// # Concurrency
//
// A Provider is safe for concurrent use. Apply, Stop, ResetAgent and Destroy on
// one cell must not overlap; the caller holds the instance's lock, and a provider
// need only make sure that breaking this rule corrupts nothing. Plan, Status and
// DialFirewall may run at the same time as anything else.
//
// The package providertest holds every provider to this contract.
package provider
