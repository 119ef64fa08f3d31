package qemu

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// startOf tells when a process was started, with a token that no other process
// of this host's boot has.
func startOf(pid int) (token string, at time.Time, err error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("asking when process %d was started: %w", pid, err)
	}
	start := info.Proc.P_starttime
	at = time.Unix(start.Sec, int64(start.Usec)*1000)
	return fmt.Sprintf("%d-%d", pid, at.UnixMicro()), at, nil
}

// hostBoot identifies the host's current boot; empty when it does not say.
func hostBoot() string {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return ""
	}
	return id
}
