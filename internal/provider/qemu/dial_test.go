package qemu

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// divert makes DialFirewall of a running cell lead to a listener of the test.
func divert(t *testing.T, id provider.CellID) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	st, err := load(id)
	if err != nil {
		t.Fatal(err)
	}
	st.Port = l.Addr().(*net.TCPAddr).Port
	if err := st.save(dirOf(id)); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDialWaitsForTheServersFirstWords(t *testing.T) {
	p, spec := cell(t, Options{})
	mustApply(t, p, spec)
	l := divert(t, spec.ID)
	go func() {
		// Like QEMU before the guest listens: at first it accepts and closes,
		// then it accepts and says nothing, and then the server is there.
		for i := 0; ; i++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			switch i {
			case 0:
				conn.Close()
			case 1:
				t.Cleanup(func() { conn.Close() })
			default:
				io.WriteString(conn, "SSH-2.0-test\r\n")
				io.Copy(conn, conn)
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := p.DialFirewall(ctx, spec.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel() // the connection does not depend on it any more
	if _, err := io.WriteString(conn, "echo"); err != nil {
		t.Fatal(err)
	}
	want := "SSH-2.0-test\r\necho"
	got := make([]byte, 0, len(want))
	for piece := make([]byte, 5); len(got) < len(want); {
		n, err := conn.Read(piece)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, piece[:n]...)
	}
	if string(got) != want {
		t.Errorf("read %q, want %q", got, want)
	}
}

func TestDialTellsWhyTheFirewallIsGone(t *testing.T) {
	p, spec := cell(t, Options{})
	mustApply(t, p, spec)
	awaitConsoles(t, p, spec.ID)
	killProcess(t, spec.ID, provider.RoleFirewall)
	_, err := p.DialFirewall(t.Context(), spec.ID)
	if !errors.Is(err, provider.ErrNotRunning) || !strings.Contains(err.Error(), "killed") || !strings.Contains(err.Error(), "stand-in guest") || !strings.Contains(err.Error(), "rootcell up") {
		t.Errorf("DialFirewall = %v, want it to tell of the kill, the last words and what to do", err)
	}
}

// TestHelperApply is not a test: it is the rootcell that
// TestKilledAnywhereTheNextContinues kills.
func TestHelperApply(t *testing.T) {
	root := os.Getenv("ROOTCELL_TEST_APPLY")
	if root == "" {
		t.Skip("runs only as a process of TestKilledAnywhereTheNextContinues")
	}
	if err := New(Options{}).Apply(t.Context(), testSpec(t, root), nil); err != nil {
		t.Fatal(err)
	}
}

func TestKilledAnywhereTheNextContinues(t *testing.T) {
	needTools(t)
	for _, after := range []int{5, 15, 30, 45, 60, 80, 100, 120, 150, 200, 300} {
		root := shortDir(t)
		cmd := exec.Command(os.Args[0], "-test.run=^TestHelperApply$")
		cmd.Env = append(os.Environ(), "ROOTCELL_TEST_APPLY="+root)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(after)*time.Millisecond, func() { cmd.Process.Kill() })
		_ = cmd.Wait() // killed, or done before
		timer.Stop()
		p, spec := New(Options{Grace: 50 * time.Millisecond}), testSpec(t, root)
		mustApply(t, p, spec)
		if st := mustStatus(t, p, spec.ID); st.Agent.State != provider.StateRunning || st.Firewall.State != provider.StateRunning {
			t.Errorf("killed after %d ms, then applied: %+v", after, st)
		}
		if steps := mustApply(t, p, spec); len(steps) != 0 {
			t.Errorf("killed after %d ms, applied, and applied again: %q", after, steps)
		}
		if n := len(processesIn(t, string(dirOf(spec.ID)))); onLinux && n != 2 {
			t.Errorf("killed after %d ms, then applied: %d processes, want 2", after, n)
		}
		if err := p.Destroy(t.Context(), spec.ID); err != nil {
			t.Errorf("Destroy: %v", err)
		}
		// A machine that the cell does not know of would be there for ever.
		if left := processesIn(t, string(dirOf(spec.ID))); len(left) > 0 {
			t.Errorf("killed after %d ms: %q is left", after, left)
		}
	}
}

// processesIn lists the processes whose working directory is or was d.
func processesIn(t *testing.T, d string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd") // none on other systems
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, d) {
			found = append(found, link)
		}
	}
	return found
}
