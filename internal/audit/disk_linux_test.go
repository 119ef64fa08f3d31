package audit_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/audit"
)

// TestAFullDiskIsCountedAndMended fills a real file system.
func TestAFullDiskIsCountedAndMended(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 192<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(filepath.Join(dir, "audit.jsonl"), 1<<20, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const burst = 1000
	for i := range burst {
		l.Record(audit.Event{Host: fmt.Sprintf("h%d.example", i)})
	}
	if err := l.Flush(); err == nil {
		t.Fatal("a full disk takes everything")
	}
	s := l.Stats()
	if s.Written+s.Dropped != burst || s.Dropped == 0 || !strings.Contains(s.Error, "no space left") || s.ErrorAt.IsZero() {
		t.Errorf("with a full disk: stats %+v", s)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	l.Record(audit.Event{Host: "after.example"})
	if err := l.Flush(); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	after := l.Stats()
	if after.Error != "" || after.Written != s.Written+1 || after.Dropped != s.Dropped {
		t.Errorf("with room again: stats %+v, before %+v", after, s)
	}
	events, err := l.Recent(t.Context(), audit.Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != int(after.Written) || events[len(events)-1].Host != "after.example" {
		t.Errorf("%d events can be read back, %d were written", len(events), after.Written)
	}
}
