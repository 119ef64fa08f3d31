//go:build linux

// Package confine starts a program with fewer rights than its caller has: an
// unprivileged or stripped user, a short list of capabilities, limits, and no
// way to gain anything back.
package confine

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Profile is what a confined program keeps.
type Profile struct {
	UID, GID     int
	Groups       []int          // supplementary groups
	Capabilities []uintptr      // kept, also across exec (ambient)
	Limits       map[int]uint64 // resource → hard and soft limit
	OOMScore     int            // oom_score_adj, −1000 (never killed) to 1000
	Umask        int
}

// Exec replaces the calling process by argv[0] under p. It returns only on
// error, after which the process must exit: some of p may hold already.
//
// Invariant: no_new_privs is set and the bounding set holds p.Capabilities
// alone, so nothing the program starts can have more (TestExec).
func Exec(p Profile, argv, env []string) error {
	// Credentials are a thread's; exec takes those of the calling one.
	runtime.LockOSThread()
	unix.Umask(p.Umask)
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(p.OOMScore)), 0o644); err != nil {
		return fmt.Errorf("setting OOM score %d: %w", p.OOMScore, err)
	}
	for resource, limit := range p.Limits {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("setting limit %d to %d: %w", resource, limit, err)
		}
	}
	if err := dropBounding(p.Capabilities); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keeping capabilities: %w", err)
	}
	if err := setIDs(p); err != nil {
		return err
	}
	if err := setCapabilities(p.Capabilities); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	if err := syscall.Exec(argv[0], argv, env); err != nil {
		return fmt.Errorf("executing %q: %w", argv[0], err)
	}
	return nil
}

func dropBounding(keep []uintptr) error {
	kept := mask(keep)
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if kept&(1<<c) != 0 {
			continue
		}
		// EINVAL: a capability that this kernel does not know.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	return nil
}

// setIDs changes this thread's ids by raw calls: the syscall package would
// change every thread's, and the others end at exec anyway.
func setIDs(p Profile) error {
	groups := make([]uint32, len(p.Groups))
	for i, g := range p.Groups {
		groups[i] = uint32(g)
	}
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
		return fmt.Errorf("setting groups: %w", errno)
	}
	gid, uid := uintptr(p.GID), uintptr(p.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("setting gid %d: %w", p.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("setting uid %d: %w", p.UID, errno)
	}
	return nil
}

func setCapabilities(keep []uintptr) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	m := mask(keep)
	low, high := uint32(m), uint32(m>>32)
	data := [2]unix.CapUserData{
		{Effective: low, Permitted: low, Inheritable: low},
		{Effective: high, Permitted: high, Inheritable: high},
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("setting capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clearing ambient capabilities: %w", err)
	}
	for _, c := range keep {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return fmt.Errorf("raising ambient capability %d: %w", c, err)
		}
	}
	return nil
}

func mask(capabilities []uintptr) uint64 {
	var m uint64
	for _, c := range capabilities {
		m |= 1 << c
	}
	return m
}
