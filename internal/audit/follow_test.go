package audit

import (
	"log/slog"
	"path/filepath"
	"testing"
)

// TestPastEndsWhereLiveBegins records events between the two halves of Follow:
// they belong to the second only.
func TestPastEndsWhereLiveBegins(t *testing.T) {
	l, err := Open(filepath.Join(t.TempDir(), "audit.jsonl"), 1<<20, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 5 {
		l.Record(Event{Port: i})
	}
	l.mu.Lock()
	mark := l.accepted
	l.mu.Unlock()
	for i := range 3 {
		l.Record(Event{Port: 5 + i})
	}
	files, newer, err := l.snapshot(mark)
	if err != nil {
		t.Fatal(err)
	}
	l.Record(Event{Port: 8}) // after the files were opened: not in them
	past, err := readBack(t.Context(), files, Filter{}, 0, newer)
	if err != nil || newer != 3 || len(past) != 5 || past[4].Port != 4 {
		t.Errorf("past is %v, with %d newer events (%v)", past, newer, err)
	}
}
