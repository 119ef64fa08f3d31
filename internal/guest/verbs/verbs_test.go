//go:build linux

package verbs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/control"
)

// daemon answers reload and status on a socket and counts them.
func daemon(t *testing.T) (socket string, verbs chan string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	verbs = make(chan string, 9)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			request, err := control.ReadRequest(bufio.NewReader(conn))
			if err == nil {
				verbs <- request.Verb
				answer := control.Response{Version: control.Version, End: true}
				switch request.Verb {
				case control.VerbReload:
					answer.Reload = &control.ReloadResult{SchemaVersion: 1, Generation: 5, Changed: map[string]control.Change{}, Problems: []control.Problem{}}
				case control.VerbStatus:
					answer.Status = &control.Status{SchemaVersion: 1, Generation: 4}
				}
				if err := control.Write(conn, answer); err != nil {
					t.Error(err)
				}
			}
			conn.Close()
		}
	}()
	return socket, verbs
}

// fixture is a Control with a policy directory and a firewall program that
// prints its arguments and ends with status 3.
func fixture(t *testing.T) (Control, chan string) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "firewall")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nprintf '[%s]' \"$@\"\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	socket, verbs := daemon(t)
	c := Default("v1", func(context.Context) (any, error) { return map[string]int{"x": 1}, nil })
	c.Firewall, c.Config, c.PolicyDir, c.Socket = program, "/f.toml", filepath.Join(dir, "policy"), socket
	if err := os.Mkdir(c.PolicyDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.PolicyDir, "allowed-dns.txt"), []byte("old.example\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return c, verbs
}

func run(c Control, line, stdin string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = c.Run(context.Background(), line, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

func TestRun(t *testing.T) {
	c, _ := fixture(t)
	cases := map[string]struct {
		line, stdout string
		status       int
	}{
		"passes arguments to ctl as they were quoted": {`ctl grant --kind https --for 30m 'a.b GET /x y$(id)'`, "[ctl][--config][/f.toml][grant][--kind][https][--for][30m][a.b GET /x y$(id)]", 3},
		"prints versions":                {"version", `{"version":"v1","schema":1}` + "\n", 0},
		"prints the firewall's own view": {"probe", `{"x":1}` + "\n", 0},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := run(c, tc.line, "")
			if status != tc.status || stdout != tc.stdout {
				t.Errorf("status %d, printed %q (%s)", status, stdout, stderr)
			}
		})
	}
}

func TestRunRefuses(t *testing.T) {
	c, _ := fixture(t)
	for _, line := range []string{
		"", " ", "sh -c id", "/bin/sh", "policy", "policy pull", "policy push x", "poweroff now", "version; id", "probe\nid",
		"ctl 'unfinished", "CTL status", "-c id", strings.Repeat("x", maxLine+1),
	} {
		status, stdout, stderr := run(c, line, "")
		if status != exitInvalid || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("Run(%.40q) = %d, %q, %q", line, status, stdout, stderr)
		}
	}
}

func TestPushWritesAndReloads(t *testing.T) {
	c, verbs := fixture(t)
	status, stdout, stderr := run(c, "policy push", `{"files":{"allowed-https.txt":"github.com\n","allowed-dns.txt":"github.com\n"}}`)
	if status != 0 {
		t.Fatalf("status %d: %s", status, stderr)
	}
	var result control.ReloadResult
	if err := json.Unmarshal([]byte(stdout), &result); err != nil || result.Generation != 5 {
		t.Errorf("printed %q (%v)", stdout, err)
	}
	if verb := <-verbs; verb != control.VerbReload {
		t.Errorf("asked the daemon for %q", verb)
	}
	for _, name := range []string{"allowed-https.txt", "allowed-dns.txt"} {
		text, err := os.ReadFile(filepath.Join(c.PolicyDir, name))
		if err != nil || string(text) != "github.com\n" {
			t.Errorf("%s is %q, %v", name, text, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(c.PolicyDir, ".push-*")); err != nil || len(left) != 0 {
		t.Errorf("temporary files stayed: %q, %v", left, err)
	}
}

func TestPushRefusesWhole(t *testing.T) {
	cases := map[string]string{
		"one bad file":      `{"files":{"allowed-dns.txt":"fine.example\n","allowed-https.txt":"a.b [\n"}}`,
		"another file":      `{"files":{"allowed-dns.txt":"fine.example\n","firewall.toml":"x"}}`,
		"a climbing name":   `{"files":{"allowed-dns.txt":"fine.example\n","../allowed-dns.txt":"x.example"}}`,
		"no files":          `{"files":{}}`,
		"no JSON":           `allowed-dns`,
		"an unknown key":    `{"files":{"allowed-dns.txt":"fine.example\n"},"mode":1}`,
		"nothing":           ``,
		"more than is read": `{"files":{"allowed-dns.txt":"` + strings.Repeat("#", maxPush) + `"}}`,
	}
	for name, stdin := range cases {
		t.Run(name, func(t *testing.T) {
			c, verbs := fixture(t)
			status, _, stderr := run(c, "policy push", stdin)
			if status != exitInvalid || stderr == "" {
				t.Errorf("status %d, %q", status, stderr)
			}
			entries, err := os.ReadDir(c.PolicyDir)
			if err != nil || len(entries) != 1 {
				t.Errorf("policy directory holds %v, %v", entries, err)
			}
			text, err := os.ReadFile(filepath.Join(c.PolicyDir, "allowed-dns.txt"))
			if err != nil || string(text) != "old.example\n" {
				t.Errorf("the list in force is %q, %v", text, err)
			}
			for {
				select {
				case verb := <-verbs:
					if verb == control.VerbReload {
						t.Error("reloaded")
					}
					continue
				default:
				}
				break
			}
		})
	}
}
