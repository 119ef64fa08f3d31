package cell

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"net/netip"
)

func TestStateSurvivesARoundTrip(t *testing.T) {
	dir := t.TempDir()
	want := stateIn("192.168.100.0/24")
	want.ID, want.Created, want.Provider = "0123", time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), "qemu"
	want.LastError = &LastError{Time: want.Created, Command: "up", Text: "boom"}
	if err := writeState(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := readState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Error(d)
	}
	if info, err := os.Stat(filepath.Join(dir, stateFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file has mode %v, err %v", info.Mode(), err)
	}
}

func TestBadStateIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty file":         ``,
		"cut off":            `{"schemaVersion":1,"subnet":"192.168.1`,
		"newer schema":       `{"schemaVersion":2,"future":true}`,
		"no schema":          `{"subnet":"192.168.100.0/24","firewallIP":"192.168.100.10","agentIP":"192.168.100.11"}`,
		"unknown key":        `{"schemaVersion":1,"subnet":"192.168.100.0/24","firewallIP":"192.168.100.10","agentIP":"192.168.100.11","x":1}`,
		"public subnet":      `{"schemaVersion":1,"subnet":"8.8.8.0/24","firewallIP":"8.8.8.10","agentIP":"8.8.8.11"}`,
		"address elsewhere":  `{"schemaVersion":1,"subnet":"192.168.100.0/24","firewallIP":"192.168.101.10","agentIP":"192.168.100.11"}`,
		"subnet with a host": `{"schemaVersion":1,"subnet":"192.168.100.7/24","firewallIP":"192.168.100.10","agentIP":"192.168.100.11"}`,
		"broadcast as agent": `{"schemaVersion":1,"subnet":"192.168.100.0/24","firewallIP":"192.168.100.10","agentIP":"192.168.100.255"}`,
		"missing addresses":  `{"schemaVersion":1,"subnet":"192.168.100.0/24"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := readState(dir)
			if err == nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("err = %v, want one that names the file", err)
			}
		})
	}
	if _, err := readState(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing state: %v", err)
	}
}

func TestWriteFileReplacesAsAWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, text := range []string{"long old content", "new"} {
		if err := writeFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != "new" {
		t.Errorf("content %q, err %v", got, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	wrote, err := createFile(path, []byte("never"), 0o600)
	if wrote || err != nil {
		t.Errorf("createFile replaced an existing file: %v, %v", wrote, err)
	}
}

func TestMakeDirClosesAnOpenDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := makeDir(dir); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
}
