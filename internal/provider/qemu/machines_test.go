package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

const onLinux = runtime.GOOS == "linux"

// monitorText runs a command of QEMU's human monitor.
func monitorText(t *testing.T, id provider.CellID, role provider.Role, command string) string {
	t.Helper()
	var out string
	err := ask(t.Context(), dirOf(id), role, 10*time.Second, "human-monitor-command", map[string]any{"command-line": command}, &out)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAgentNetworkAsQEMUSeesIt(t *testing.T) {
	p, spec := cell(t, Options{})
	mustApply(t, p, spec)
	info := monitorText(t, spec.ID, provider.RoleAgent, "info network")
	lines := strings.Split(strings.TrimSpace(info), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "virtio-net-pci.0: index=0,type=nic") || !strings.Contains(lines[1], "cell: index=0,type=dgram") {
		t.Errorf("the agent's network is not one device on the link alone:\n%s", info)
	}
	if !strings.Contains(lines[0], "macaddr="+provider.MAC(spec.ID.Instance, provider.RoleAgent, provider.NICCell).String()) {
		t.Errorf("the agent's address is not the one of its configuration:\n%s", info)
	}
	if usernet := monitorText(t, spec.ID, provider.RoleAgent, "info usernet"); strings.TrimSpace(usernet) != "" {
		t.Errorf("the agent has a user-mode network:\n%s", usernet)
	}
	for _, device := range []string{"vsock", "9p", "virtio-fs", "usb", "e1000", "ide"} {
		if tree := monitorText(t, spec.ID, provider.RoleAgent, "info qtree"); strings.Contains(tree, "dev: "+device) {
			t.Errorf("the agent has a device %q", device)
		}
	}
	// The firewall has both, so the questions above are the right ones.
	info = monitorText(t, spec.ID, provider.RoleFirewall, "info network")
	if !strings.Contains(info, "type=user") || !strings.Contains(info, "type=dgram") {
		t.Errorf("the firewall's network:\n%s", info)
	}
	usernet := monitorText(t, spec.ID, provider.RoleFirewall, "info usernet")
	if !strings.Contains(usernet, "127.0.0.1") || !strings.Contains(usernet, " 22 ") {
		t.Errorf("the firewall's forwards:\n%s", usernet)
	}
}

func TestDirectoryIsPrivate(t *testing.T) {
	p, spec := cell(t, Options{})
	if err := os.MkdirAll(string(dirOf(spec.ID)), 0o755); err != nil {
		t.Fatal(err)
	}
	spec.Agent.Config = []byte("secret")
	mustApply(t, p, spec)
	for _, path := range []string{spec.ID.Dir, string(dirOf(spec.ID))} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v, want mode 0700", path, info.Mode(), err)
		}
	}
	config := dirOf(spec.ID).path("agent.json")
	info, err := os.Stat(config)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v %v, want mode 0600", config, info.Mode(), err)
	}
	if data, err := os.ReadFile(config); err != nil || string(data) != "secret" {
		t.Errorf("%s holds %q (%v)", config, data, err)
	}
	cmdline, err := os.ReadFile("/proc/" + itoa(pidOf(t, spec.ID, provider.RoleAgent)) + "/cmdline")
	if err == nil && bytes.Contains(cmdline, []byte("secret")) {
		t.Error("the configuration is in the process's arguments")
	}
}

func TestMachinesOutliveTheTerminal(t *testing.T) {
	p, spec := cell(t, Options{})
	t.Setenv("ROOTCELL_TEST_SECRET", "hidden")
	mustApply(t, p, spec)
	for _, role := range roles {
		pid := pidOf(t, spec.ID, role)
		if sid, err := getsid(pid); err != nil || sid != pid {
			t.Errorf("the %s's session is %d (%v), want its own, %d", role, sid, err, pid)
		}
		if environ, err := os.ReadFile("/proc/" + itoa(pid) + "/environ"); err == nil && bytes.Contains(environ, []byte("hidden")) {
			t.Errorf("the %s's QEMU inherited the caller's environment", role)
		}
	}
}

func TestStalePidIsNotOurs(t *testing.T) {
	d := dir(t.TempDir())
	if err := os.WriteFile(d.path("agent.pid"), []byte(itoa(os.Getpid())+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pid, err := d.holder(provider.RoleAgent); err != nil || pid != 0 {
		t.Errorf("holder = %d, %v; want no process", pid, err)
	}
	if err := d.kill(t.Context(), provider.RoleAgent); err != nil {
		t.Errorf("kill = %v", err)
	}
}

func TestPowerButtonIsTriedFirst(t *testing.T) {
	p, spec := cell(t, Options{Grace: 20 * time.Second})
	spec.Agent.Cmdline, spec.Firewall.Cmdline = "P", "P"
	mustApply(t, p, spec)
	awaitConsoles(t, p, spec.ID)
	if err := p.Stop(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	// A guest that switches itself off leaves QEMU nothing to say; one that is
	// made to quit is a second's difference, but one that is killed is told.
	if words := dirOf(spec.ID).complaint(provider.RoleAgent); words != "" {
		t.Errorf("the agent's QEMU said %q", words)
	}
	if st := mustStatus(t, p, spec.ID); st.Agent.State != provider.StateStopped || st.Agent.Detail != "" {
		t.Errorf("the agent: %+v", st.Agent)
	}
}

func TestStopEndsAtOnceWithItsContext(t *testing.T) {
	p, spec := cell(t, Options{Grace: time.Hour})
	mustApply(t, p, spec)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.Stop(ctx, spec.ID); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if st := mustStatus(t, p, spec.ID); st.Agent.State != provider.StateStopped || st.Firewall.State != provider.StateStopped {
		t.Errorf("after Stop: %+v", st)
	}
}

func TestAgentThatShutsItselfDownIsStopped(t *testing.T) {
	p, spec := cell(t, Options{})
	spec.Agent.Cmdline, spec.Firewall.Cmdline = "P", "P"
	mustApply(t, p, spec)
	awaitConsoles(t, p, spec.ID)
	for _, role := range roles {
		if err := ask(t.Context(), dirOf(spec.ID), role, 5*time.Second, "system_powerdown", nil, nil); err != nil {
			t.Fatal(err)
		}
		if gone, err := dirOf(spec.ID).awaitEnd(t.Context(), role, 20*time.Second); !gone || err != nil {
			t.Fatalf("the %s did not switch off (%v)", role, err)
		}
	}
	st := mustStatus(t, p, spec.ID)
	if st.Agent.State != provider.StateStopped || st.Agent.Detail != "it shut itself down" {
		t.Errorf("the agent: %+v", st.Agent)
	}
	// Nobody but rootcell shuts a firewall down.
	if st.Firewall.State != provider.StateUnexpected || !strings.Contains(st.Firewall.Detail, "stand-in guest") {
		t.Errorf("the firewall: %+v, want it unexpected, with its last words", st.Firewall)
	}
}

func TestAgentRebootsAndFirewallDoesNot(t *testing.T) {
	p, spec := cell(t, Options{})
	spec.Agent.Cmdline, spec.Firewall.Cmdline = "R", "R"
	mustApply(t, p, spec)
	boot := mustStatus(t, p, spec.ID).Agent.BootID
	eventually(t, "the agent boots three times", func() bool {
		console, err := p.Console(t.Context(), spec.ID, provider.RoleAgent)
		return err == nil && bytes.Count(console, []byte("stand-in")) >= 3
	})
	if got := mustStatus(t, p, spec.ID).Agent; got.State != provider.StateRunning || got.BootID != boot {
		t.Errorf("the agent after its reboots: %+v", got)
	}
	eventually(t, "the firewall ends", func() bool {
		return mustStatus(t, p, spec.ID).Firewall.State == provider.StateUnexpected
	})
	if console, err := p.Console(t.Context(), spec.ID, provider.RoleFirewall); err != nil || bytes.Count(console, []byte("stand-in")) != 1 {
		t.Errorf("the firewall booted again: %q, %v", console, err)
	}
}

// awaitConsoles waits until both guests have said that they run.
func awaitConsoles(t *testing.T, p *Provider, id provider.CellID) {
	t.Helper()
	for _, role := range roles {
		eventually(t, "a line on the console of the "+string(role), func() bool {
			console, err := p.Console(t.Context(), id, role)
			return err == nil && bytes.Contains(console, []byte("stand-in guest"))
		})
	}
}

func TestPortIsKeptAndGivenUpWhenTaken(t *testing.T) {
	p, spec := cell(t, Options{})
	mustApply(t, p, spec)
	first := mustStatus(t, p, spec.ID).Endpoint
	if err := p.Stop(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	mustApply(t, p, spec)
	if second := mustStatus(t, p, spec.ID).Endpoint; second != first {
		t.Errorf("the port moved from %s to %s for nothing", first, second)
	}
	if err := p.Stop(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp4", first)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	steps := strings.Join(mustApply(t, p, spec), "\n")
	third := mustStatus(t, p, spec.ID)
	if third.Endpoint == first || third.Firewall.State != provider.StateRunning {
		t.Errorf("with the port taken: %+v", third)
	}
	if !strings.Contains(steps, "which another program has") {
		t.Errorf("the steps do not tell that the port moved:\n%s", steps)
	}
}

func TestLongDirectoriesWork(t *testing.T) {
	needTools(t)
	root := filepath.Join(shortDir(t), strings.Repeat("d", 100), "a,b c")
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	spec := testSpec(t, root)
	p := New(Options{Grace: 50 * time.Millisecond})
	t.Cleanup(func() {
		if err := p.Destroy(context.Background(), spec.ID); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
	mustApply(t, p, spec)
	if st := mustStatus(t, p, spec.ID); st.Agent.State != provider.StateRunning || st.Firewall.State != provider.StateRunning {
		t.Errorf("below a long path with a comma: %+v", st)
	}
}

func TestPausedMachinesAreResumed(t *testing.T) {
	p, spec := cell(t, Options{})
	mustApply(t, p, spec)
	boot := mustStatus(t, p, spec.ID).Agent.BootID
	if err := ask(t.Context(), dirOf(spec.ID), provider.RoleAgent, 5*time.Second, "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	if st := mustStatus(t, p, spec.ID); st.Agent.State != provider.StateUnexpected || !strings.Contains(st.Agent.Detail, "paused") {
		t.Errorf("a paused agent: %+v", st.Agent)
	}
	mustApply(t, p, spec)
	if st := mustStatus(t, p, spec.ID); st.Agent.State != provider.StateRunning || st.Agent.BootID != boot {
		t.Errorf("after Apply: %+v, want it resumed", st.Agent)
	}
}

func TestHungProcessIsReplaced(t *testing.T) {
	p, spec := cell(t, Options{})
	mustApply(t, p, spec)
	pid := pidOf(t, spec.ID, provider.RoleAgent)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if st := mustStatus(t, p, spec.ID); st.Agent.State != provider.StateUnexpected || !strings.Contains(st.Agent.Detail, "does not answer") {
		t.Errorf("a stopped process: %+v", st.Agent)
	}
	if err := p.Stop(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := dirOf(spec.ID).holder(provider.RoleAgent); err != nil || got != 0 {
		t.Errorf("the hung process %d is still there (%v)", got, err)
	}
}

func TestBrokenStateIsToldAndDestroyed(t *testing.T) {
	p, spec := cell(t, Options{})
	mustApply(t, p, spec)
	name := dirOf(spec.ID).path(stateFile)
	if err := os.WriteFile(name, []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Status(t.Context(), spec.ID); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("Status = %v, want it to name %s", err, name)
	}
	if err := p.Apply(t.Context(), spec, nil); err == nil || errors.Is(err, provider.ErrNotFound) {
		t.Errorf("Apply = %v", err)
	}
	if err := p.Destroy(t.Context(), spec.ID); err != nil {
		t.Errorf("Destroy: %v", err)
	}
	if got, err := dirOf(spec.ID).holder(provider.RoleAgent); err != nil || got != 0 {
		t.Errorf("process %d is left (%v)", got, err)
	}
}

func TestDiskSurvivesALostState(t *testing.T) {
	p, spec := cell(t, Options{})
	mustApply(t, p, spec)
	if err := p.Stop(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	d := dirOf(spec.ID)
	before, err := os.Stat(d.path("agent.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.remove(stateFile); err != nil {
		t.Fatal(err)
	}
	mustApply(t, p, spec)
	if after, err := os.Stat(d.path("agent.qcow2")); err != nil || !os.SameFile(before, after) {
		t.Errorf("the agent's disk was replaced (%v)", err)
	}
}

func TestAgentDiskGrowsAndNeverShrinks(t *testing.T) {
	p, spec := cell(t, Options{})
	size := func() int64 {
		t.Helper()
		n, _, err := imageInfo(t.Context(), dirOf(spec.ID).path("agent.qcow2"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, step := range []struct{ ask, want int64 }{{8 << 20, 8 << 20}, {16 << 20, 16 << 20}, {4 << 20, 16 << 20}} {
		spec.Agent.DiskBytes = step.ask
		mustApply(t, p, spec)
		if got := size(); got != step.want {
			t.Errorf("with %d bytes asked for, the disk has %d, want %d", step.ask, got, step.want)
		}
	}
}

func TestImageMayLeaveTheCache(t *testing.T) {
	p, spec := cell(t, Options{})
	mustApply(t, p, spec)
	if err := p.Stop(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	newer := spec
	newer.Agent.Image = filepath.Join(filepath.Dir(spec.Agent.Image), "two.img")
	if err := os.Remove(spec.Agent.Image); err != nil {
		t.Fatal(err)
	}
	mustApply(t, p, newer)
	if st := mustStatus(t, p, spec.ID); st.Agent.State != provider.StateRunning || !st.Agent.Outdated {
		t.Errorf("without its image in the cache: %+v", st.Agent)
	}
}

func TestMissingImageIsToldBeforeAnythingIsMade(t *testing.T) {
	p, spec := cell(t, Options{})
	spec.Agent.Image += ".gone"
	err := p.Apply(t.Context(), spec, nil)
	if err == nil || !strings.Contains(err.Error(), "rootcell image build") || !strings.Contains(err.Error(), "agent's image") {
		t.Errorf("Apply = %v", err)
	}
	if _, err := os.Stat(spec.ID.Dir); !os.IsNotExist(err) {
		t.Errorf("something was made: %v", err)
	}
}

func TestQEMUThatEndsAtOnceIsTold(t *testing.T) {
	p, spec := cell(t, Options{})
	spec.Agent.CPUs = 5000
	err := p.Apply(t.Context(), spec, nil)
	if err == nil || !strings.Contains(err.Error(), "QEMU ended at once") || !strings.Contains(err.Error(), "5000") {
		t.Errorf("Apply = %v, want QEMU's own words", err)
	}
}

func TestFirewallConsoleIsTrimmed(t *testing.T) {
	p, spec := cell(t, Options{})
	mustApply(t, p, spec)
	awaitConsoles(t, p, spec.ID)
	console := dirOf(spec.ID).path("firewall.console")
	if err := os.WriteFile(console, bytes.Repeat([]byte("noise\n"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	mustApply(t, p, spec)
	if info, err := os.Stat(console); err != nil || info.Size() != consoleKept {
		t.Errorf("the console has %d bytes (%v), want %d", info.Size(), err, consoleKept)
	}
	if err := ask(t.Context(), dirOf(spec.ID), provider.RoleFirewall, 5*time.Second, "system_reset", nil, nil); err != nil {
		t.Fatal(err)
	}
}

func TestLogDiskIsFoundByItsLabel(t *testing.T) {
	p, spec := cell(t, Options{})
	mustApply(t, p, spec)
	data, err := os.ReadFile(dirOf(spec.ID).path("firewall.raw"))
	if err != nil {
		t.Fatal(err)
	}
	// ext4: super block at 1024, magic at 56, volume name at 120.
	if magic := binary.LittleEndian.Uint16(data[1024+56:]); magic != 0xef53 {
		t.Errorf("magic %#x, want ext4's", magic)
	}
	label := string(bytes.TrimRight(data[1024+120:1024+136], "\x00"))
	if diff := cmp.Diff(logLabel, label); diff != "" {
		t.Error(diff)
	}
}

func TestStartIsTriedAgainWhenAnotherWasFaster(t *testing.T) {
	for name, complaint := range map[string]string{
		"to the port":     "qemu: -netdev user: Could not set up host forwarding rule 'tcp:127.0.0.1:1-:22'",
		"to the pid file": "qemu: cannot create PID file: Cannot lock pid file: Resource temporarily unavailable",
	} {
		t.Run(name, func(t *testing.T) {
			marker := filepath.Join(t.TempDir(), "tried")
			script := `case "$*" in *firewall.pid*) [ -e ` + marker + ` ] || { : >` + marker + `; echo "` + complaint + `" >&2; exit 1; };; esac`
			p, spec := cell(t, Options{Binary: wrapper(t, script)})
			mustApply(t, p, spec)
			if _, err := os.Stat(marker); err != nil {
				t.Fatalf("the first start did not go wrong: %v", err)
			}
			if st := mustStatus(t, p, spec.ID); st.Firewall.State != provider.StateRunning {
				t.Errorf("the firewall: %+v", st.Firewall)
			}
		})
	}
}
