//go:build linux

package confine

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const childEnv = "ROOTCELL_TEST_CONFINE"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		err := Exec(Profile{
			UID: 12345, GID: 12346, Groups: []int{12347}, Capabilities: []uintptr{unix.CAP_NET_BIND_SERVICE},
			Limits: map[int]uint64{unix.RLIMIT_NOFILE: 77}, OOMScore: 300, Umask: 0o027,
		}, []string{"/bin/sh", "-c", "cat /proc/self/status /proc/self/limits /proc/self/oom_score_adj; umask"}, nil)
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestExec(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give rights up")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{childEnv + "=1", "PATH=/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text := strings.Join(strings.Fields(string(out)), " ")
	const one = "0000000000000400"
	for _, want := range []string{
		"Uid: 12345 12345 12345 12345", "Gid: 12346 12346 12346 12346", "Groups: 12347 ",
		"CapInh: " + one, "CapPrm: " + one, "CapEff: " + one, "CapBnd: " + one, "CapAmb: " + one,
		"NoNewPrivs: 1", "Max open files 77 77", " 300 0027",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the program does not run with %q:\n%s", want, out)
		}
	}
}

func TestMask(t *testing.T) {
	if got := mask([]uintptr{unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_ADMIN}); got != 1<<10|1<<12 {
		t.Errorf("mask = %#x", got)
	}
}
