package qemu

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

func TestFullDiskIsToldAndNothingIsLost(t *testing.T) {
	needTools(t)
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk takes root")
	}
	root, small := shortDir(t), shortDir(t)
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(small, unix.MNT_DETACH) })
	spec := testSpec(t, root)
	spec.ID.Dir = small + "/v"
	p := New(Options{Grace: 50 * time.Millisecond})
	t.Cleanup(func() {
		if err := p.Destroy(context.Background(), spec.ID); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
	mustApply(t, p, spec)
	filler := small + "/filler"
	fill(t, filler)
	spec.Agent.Config = []byte(strings.Repeat("x", 64<<10))
	err := p.Apply(t.Context(), spec, nil)
	if err == nil || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("Apply on a full disk = %v", err)
	}
	if st, err := p.Status(t.Context(), spec.ID); err != nil || st.Firewall.State != provider.StateRunning {
		t.Errorf("Status on a full disk: %+v, %v", st, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	mustApply(t, p, spec)
	if st := mustStatus(t, p, spec.ID); st.Agent.State != provider.StateRunning {
		t.Errorf("after space was freed: %+v", st)
	}
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			return
		}
	}
}
