package qemu

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// consoleRing is how many bytes of the agent's console QEMU keeps. It must be a
// power of two.
const consoleRing = 256 << 10

// arguments is QEMU's command line, without the program, for one start of a
// machine. Every path that it makes up is relative to the cell's directory.
func arguments(role provider.Role, instance, uuid string, l launch, port int) []string {
	arm := l.Arch == "arm64"
	args := []string{
		"-name", "guest=" + escape(l.Name),
		"-uuid", uuid,
		"-nodefaults", "-no-user-config", "-display", "none",
		"-machine", machineType(arm),
		"-accel", accelArgument(l.Accel, role),
		"-cpu", cpuModel(l.Accel),
		"-smp", fmt.Sprint(l.CPUs),
		"-m", fmt.Sprintf("size=%dM", l.MemoryBytes>>20),
		"-rtc", "base=utc",
	}
	if runtime.GOOS == "linux" {
		// A guest that breaks out into its QEMU process finds no way to start
		// a program or to change its user.
		args = append(args, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	}
	args = append(args,
		"-pidfile", file(role, "pid"),
		"-qmp", "unix:"+file(role, "qmp")+",server=on,wait=off",
		"-fw_cfg", "name=opt/rootcell/guest.json,file="+file(role, "json"),
		"-object", "rng-builtin,id=rng0",
		"-device", "virtio-rng-pci,rng=rng0",
		// Nobody inflates it: it is there for the guest to tell which of its
		// memory is free, so that the host gets it back.
		"-device", "virtio-balloon-pci,free-page-reporting=on",
	)
	args = append(args, bootArguments(role, l, arm)...)
	args = append(args, diskArguments(role)...)
	args = append(args, linkArguments(role, instance)...)
	if role == provider.RoleFirewall {
		args = append(args, uplinkArguments(instance, port)...)
		// Invariant: a firewall that crashes ends instead of booting again from
		// the policy of its last start, which may allow what was revoked since
		// (TestFirewallNeverReboots). The next Apply starts it with the
		// current one. The agent may reboot as it likes.
		args = append(args, "-no-reboot")
	}
	return args
}

// machineType leaves out what no guest here uses: fewer devices to probe and
// to attack. (graphics=off would make the firmware write to the serial console,
// which the guard of a new accelerator would take for the guest's life.)
func machineType(arm bool) string {
	if arm {
		return "virt,gic-version=max"
	}
	return "q35,usb=off,vmport=off,smbus=off,sata=off"
}

// accelArgument bounds the buffer of translated code, which would else take up to
// an eighth of the host's memory. Of a small buffer the firewall's kernel and
// daemon need no more; the agent's compilers do. (A booted firewall under QEMU
// 7.2 had 202, 220, 246 and 246 MiB resident with 16, 32, 64 and 128, at the same
// CPU time, in November 2026.)
func accelArgument(accel string, role provider.Role) string {
	switch {
	case accel != "tcg":
		return accel
	case role == provider.RoleAgent:
		return "tcg,thread=multi,tb-size=128"
	}
	return "tcg,thread=multi,tb-size=32"
}

func cpuModel(accel string) string {
	if accel == "tcg" {
		return "max"
	}
	return "host"
}

// bootArguments boots the kernel directly and connects the serial console.
//
// Invariant: the agent's console is a ring in memory and not a file: root in the
// agent can write to it for ever and would fill the host's disk
// (TestAgentConsoleTakesNoDisk). The firewall's is a file, so that its last
// words survive it.
func bootArguments(role provider.Role, l launch, arm bool) []string {
	console := "ttyS0"
	if arm {
		console = "ttyAMA0"
	}
	chardev := "file,id=console,path=" + file(role, "console") + ",append=on"
	cmdline := "console=" + console + " quiet panic=10"
	if role == provider.RoleAgent {
		chardev = fmt.Sprintf("ringbuf,id=console,size=%d", consoleRing)
		cmdline += " root=/dev/vda rw"
	}
	if l.Cmdline != "" {
		cmdline += " " + l.Cmdline
	}
	args := []string{"-chardev", chardev, "-serial", "chardev:console", "-kernel", file(role, "kernel")}
	if l.Initrd != "" {
		args = append(args, "-initrd", file(role, "initrd"))
	}
	return append(args, "-append", cmdline)
}

// diskArguments attaches the machine's disk as /dev/vda. The format is always
// named: a guest that writes another format's header into its raw disk gains
// nothing.
func diskArguments(role provider.Role) []string {
	node := "driver=raw,node-name=disk0,discard=unmap,file.driver=file,file.filename=" + diskFile(role)
	if role == provider.RoleAgent {
		node = "driver=qcow2,node-name=disk0,discard=unmap,file.driver=file,file.filename=" + diskFile(role)
	}
	return []string{"-blockdev", node, "-device", "virtio-blk-pci,drive=disk0,romfile="}
}

// linkArguments attaches the machine to the private link.
func linkArguments(role provider.Role, instance string) []string {
	peer := provider.RoleAgent
	if role == provider.RoleAgent {
		peer = provider.RoleFirewall
	}
	// Invariant: the agent's only network device is this one, and its only
	// peer the firewall's process (TestAgentHasOnlyTheLink on the
	// arguments, TestAgentNetworkAsQEMUSeesIt on the running process).
	return []string{
		"-netdev", "dgram,id=cell,local.type=unix,local.path=" + file(role, "net") + ",remote.type=unix,remote.path=" + file(peer, "net"),
		"-device", "virtio-net-pci,netdev=cell,romfile=,mac=" + provider.MAC(instance, role, provider.NICCell).String(),
	}
}

// uplinkArguments attaches the firewall to the user-mode network.
func uplinkArguments(instance string, port int) []string {
	return []string{
		"-netdev", fmt.Sprintf("user,id=uplink,ipv6=off,hostfwd=tcp:127.0.0.1:%d-:22", port),
		"-device", "virtio-net-pci,netdev=uplink,romfile=,mac=" + provider.MAC(instance, provider.RoleFirewall, provider.NICUplink).String(),
	}
}

// diskFile names the file of a machine's disk.
func diskFile(role provider.Role) string {
	if role == provider.RoleAgent {
		return file(role, "qcow2")
	}
	return file(role, "raw")
}

// escape protects a value within a QEMU option, where a comma ends it.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
