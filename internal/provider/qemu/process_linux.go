package qemu

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTicks is USER_HZ, 100 on every architecture that Go runs on.
const clockTicks = 100

// startOf tells when a process was started, with a token that no other process
// of this host's boot has.
func startOf(pid int) (token string, at time.Time, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", time.Time{}, fmt.Errorf("asking when process %d was started: %w", pid, err)
	}
	// proc(5): the name in parentheses may hold anything; starttime is field 22.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return "", time.Time{}, fmt.Errorf("asking when process %d was started: %q has no start time", pid, stat)
	}
	ticks, err := strconv.ParseInt(string(fields[19]), 10, 64)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("asking when process %d was started: %w", pid, err)
	}
	at = bootTime().Add(time.Duration(ticks) * time.Second / clockTicks)
	return fmt.Sprintf("%d-%d", pid, ticks), at, nil
}

// bootTime is when the host was started, the zero time when it does not say.
func bootTime() time.Time {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(string(stat)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			seconds, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			if err == nil {
				return time.Unix(seconds, 0)
			}
		}
	}
	return time.Time{}
}

// hostBoot identifies the host's current boot; empty when it does not say.
func hostBoot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
