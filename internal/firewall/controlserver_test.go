package firewall

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/control"
)

// dialer makes the test binary a client of the socket named in its environment: it
// prints what the daemon answers to a status request.
const dialer = "ROOTCELL_TEST_CONTROL_SOCKET"

func TestMain(m *testing.M) {
	path := os.Getenv(dialer)
	if path == "" {
		os.Exit(m.Run())
	}
	status, err := control.Dial(path).Status(context.Background())
	fmt.Println(status.Instance, err)
}

// serveControl runs a control server on a socket in a directory that everybody may enter.
func serveControl(t *testing.T) (string, *controlServer) {
	t.Helper()
	dir, err := os.MkdirTemp("", "rootcell-control-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	events, err := audit.Open(filepath.Join(t.TempDir(), "audit.jsonl"), 1<<20, log)
	if err != nil {
		t.Fatal(err)
	}
	l := newLists(t, "", "", "")
	l.reload()
	s := &controlServer{book: l.book, audit: events, log: log, slots: make(chan struct{}, 2),
		status: func() control.Status { return control.Status{Instance: "served"} }}
	path := filepath.Join(dir, "control.sock")
	listener, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.serve(ctx, listener); close(done) }()
	t.Cleanup(func() { cancel(); listener.Close(); <-done; events.Close() })
	return path, s
}

func TestControlChecksWhoIsAsking(t *testing.T) {
	for _, test := range []struct {
		uid, own uint32
		want     bool
	}{{0, 900, true}, {900, 900, true}, {0, 0, true}, {1000, 900, false}, {901, 900, false}, {1000, 0, false}} {
		if got := mayControl(test.uid, test.own); got != test.want {
			t.Errorf("user %d of a daemon of user %d: %v, want %v", test.uid, test.own, got, test.want)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	path, _ := serveControl(t)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v, want 0660", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o777); err != nil { // the mode is the first fence, this is about the second
		t.Fatal(err)
	}
	binary := filepath.Join(filepath.Dir(path), "client")
	copyFile(t, "/proc/self/exe", binary)
	for uid, want := range map[uint32]string{0: "served <nil>", 1000: " only root"} {
		cmd := exec.CommandContext(t.Context(), binary)
		cmd.Env = []string{dialer + "=" + path}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("user %d: %q, %v, want %q", uid, out, err, want)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestControlRefusesWhatItDoesNotUnderstand(t *testing.T) {
	path, _ := serveControl(t)
	for _, text := range []string{"{}\n", "nonsense\n", `{"version":1,"verb":"reload","x":1}` + "\n", `{"version":9,"verb":"reload"}` + "\n"} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		response, err := control.ReadResponse(bufio.NewReader(conn))
		if err != nil || response.Error == nil || response.Error.Code != control.CodeInvalid || !response.End {
			t.Errorf("%q was answered with %+v, %v", text, response, err)
		}
		conn.Close()
	}
}

func TestControlTellsWhenItIsBusy(t *testing.T) {
	path, s := serveControl(t)
	for range cap(s.slots) {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	deadline := time.After(10 * time.Second)
	for {
		_, err := control.Dial(path).Status(t.Context())
		if refusal, ok := errors.AsType[*control.Error](err); ok && refusal.Code == control.CodeBusy {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("with all slots taken: %v", err)
		default:
		}
	}
}

func TestControlFollowsTheLog(t *testing.T) {
	path, s := serveControl(t)
	s.audit.Record(audit.Event{Kind: audit.KindDNS, Verdict: audit.Deny, Host: "before.test"})
	s.audit.Record(audit.Event{Kind: audit.KindDNS, Verdict: audit.Allow, Host: "allowed.test"})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var hosts []string
	err := control.Dial(path).Log(ctx, control.LogQuery{Follow: true, Denied: true}, func(event json.RawMessage) error {
		hosts = append(hosts, string(event))
		switch len(hosts) {
		case 1:
			s.audit.Record(audit.Event{Kind: audit.KindDNS, Verdict: audit.Deny, Host: "after.test"})
		case 2:
			cancel()
		}
		return nil
	})
	if err != nil || len(hosts) != 2 || !strings.Contains(hosts[0], "before.test") || !strings.Contains(hosts[1], "after.test") {
		t.Errorf("followed %q, %v", hosts, err)
	}
}

func TestAPanicEndsOneControlConnectionOnly(t *testing.T) {
	path, s := serveControl(t)
	s.status = func() control.Status { panic("defect") }
	for range 3 {
		if _, err := control.Dial(path).Status(t.Context()); err == nil {
			t.Error("a panic was answered")
		}
	}
	if _, err := control.Dial(path).Reload(t.Context()); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

func TestListenControlReplacesOnlyStaleSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if _, err := listenControl(path); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("with a daemon there: %v", err)
	}
	stale.Close()
	listener, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenControl(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("with a file there: %v", err)
	}
}
