package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/audit"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)

func full() audit.Event {
	return audit.Event{
		Time: noon, Instance: "default", Generation: 7, Conn: "c1", Kind: audit.KindHTTPS, Verdict: audit.Deny,
		Reason: "path-rule", Rule: "allowed-https.txt:12", Host: "api.example.com", Port: 443, Method: "GET",
		Path: "/a?b=c", Upstream: "93.184.216.34:443", Status: 403, BytesUp: 12, BytesDown: 1 << 40, DurationMS: 1.25,
	}
}

func TestLinesHaveEveryKeyInOrder(t *testing.T) {
	e := full()
	const want = `{"time":"2026-11-22T12:00:00.123456Z","instance":"default","generation":7,"conn":"c1","kind":"https",` +
		`"verdict":"deny","reason":"path-rule","rule":"allowed-https.txt:12","host":"api.example.com","port":443,` +
		`"method":"GET","path":"/a?b=c","upstream":"93.184.216.34:443","status":403,"bytes_up":12,` +
		`"bytes_down":1099511627776,"duration_ms":1.250}`
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	e.Opaque = true
	if got := string(e.AppendJSON(nil)); !strings.HasSuffix(got, `,"opaque":true}`) {
		t.Errorf("an opaque flow is written as %s", got)
	}
}

func TestLinesReadBackAsTheyWere(t *testing.T) {
	tests := map[string]audit.Event{
		"every field":      full(),
		"no field":         {Time: noon},
		"other alphabets":  {Time: noon, Path: "/grüße/日本/🦊"},
		"quotes":           {Time: noon, Path: `/"a"\b`},
		"control":          {Time: noon, Path: "/\x00\n\r\t\x1b[2J\x7f"},
		"C1 and bidi":      {Time: noon, Path: "/\u0085\u202e\u2066\u200b\ufeff"},
		"beyond the plane": {Time: noon, Path: "/\U000e0001"},
		"long durations":   {Time: noon, DurationMS: 86400000.001},
	}
	for name, e := range tests {
		t.Run(name, func(t *testing.T) {
			var got audit.Event
			if err := json.Unmarshal(e.AppendJSON(nil), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(e, got); diff != "" {
				t.Errorf("(-wrote +read)\n%s", diff)
			}
		})
	}
}

func TestHostileFieldsStayOnOneShortPrintableLine(t *testing.T) {
	tests := map[string]struct {
		path, want string
	}{
		"a forged record":            {"/\n{\"verdict\":\"allow\"}", `"path":"/\u000a{\"verdict\":\"allow\"}"`},
		"a cleared screen":           {"/\x1b[2J", `"path":"/\u001b[2J"`},
		"a C1 control sequence":      {"/\u009b2J", `"path":"/\u009b2J"`},
		"text that runs backwards":   {"/\u202egpj", `"path":"/\u202egpj"`},
		"bytes that are no text":     {"/\xff\xfe", `"path":"/\ufffd\ufffd"`},
		"a megabyte":                 {"/" + strings.Repeat("a", 1<<20), strings.Repeat("a", 2047) + `…"`},
		"a cut inside of a letter":   {strings.Repeat("a", 2047) + "日", strings.Repeat("a", 2047) + `\ufffd…"`},
		"a megabyte of control bits": {strings.Repeat("\x00", 1<<20), `\u0000…"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := audit.Event{Time: noon, Path: test.path}
			got := string(e.AppendJSON(nil))
			if !strings.Contains(got, test.want) {
				t.Errorf("%.300s\nhas no %.100s", got, test.want)
			}
			checkLine(t, got)
		})
	}
}

func checkLine(t *testing.T, line string) {
	t.Helper()
	if !utf8.ValidString(line) || len(line) > 24<<10 || !json.Valid([]byte(line)) {
		t.Errorf("%d bytes, valid UTF-8: %v, valid JSON: %v", len(line), utf8.ValidString(line), json.Valid([]byte(line)))
	}
	for _, r := range line {
		if !unicode.IsGraphic(r) {
			t.Fatalf("%+q is in the line", r)
		}
	}
}

func TestNumbersThatJSONLacksBecomeZero(t *testing.T) {
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, math.MaxFloat64} {
		e := audit.Event{Time: noon, DurationMS: f}
		if got := string(e.AppendJSON(nil)); !strings.HasSuffix(got, `"duration_ms":0}`) {
			t.Errorf("%v is written as %s", f, got)
		}
	}
}

func FuzzAppendJSON(f *testing.F) {
	f.Add("default", "/\x1b[2J", "evil\u202e.example", uint64(1), 1.5)
	f.Add("\xff\"\\", "\ud7ff\U0010ffff", "", uint64(math.MaxUint64), math.NaN())
	f.Fuzz(func(t *testing.T, instance, path, host string, generation uint64, duration float64) {
		e := audit.Event{Time: noon, Instance: instance, Path: path, Host: host, Rule: path, Reason: host,
			Method: path, Upstream: host, Conn: path, Generation: generation, DurationMS: duration}
		checkLine(t, string(e.AppendJSON(nil)))
	})
}

func open(t testing.TB, maxBytes int64) (*audit.Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := audit.Open(path, maxBytes, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

func TestEveryEventIsALineInTheFile(t *testing.T) {
	l, path := open(t, 64<<20)
	const workers, each = 8, 500
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				l.Record(audit.Event{Kind: audit.KindDNS, Host: fmt.Sprintf("h%d-%d.example", w, i)})
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		var e audit.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if e.Time.IsZero() {
			t.Fatal("an event has no time")
		}
		seen[e.Host] = true
	}
	if s := l.Stats(); len(seen) != workers*each || s.Written != workers*each || s.Dropped != 0 {
		t.Errorf("%d events in the file, stats %+v; want %d", len(seen), s, workers*each)
	}
	l.Record(audit.Event{})
	if s := l.Stats(); s.Dropped != 1 {
		t.Errorf("an event after Close: stats %+v", s)
	}
}

func TestTheFirstEventIsWrittenWithoutBeingAsked(t *testing.T) {
	l, path := open(t, 1<<20)
	l.Record(full())
	deadline := time.Now().Add(5 * time.Second)
	for {
		if text, _ := os.ReadFile(path); bytes.HasSuffix(text, []byte("}\n")) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the file stays empty")
		}
		<-time.After(time.Millisecond)
	}
}

func TestFilesStayBelowTheLimit(t *testing.T) {
	const limit = 64 << 10
	l, path := open(t, limit)
	for i := range 5000 {
		l.Record(audit.Event{Time: noon, Host: fmt.Sprintf("h%d.example", i)})
		if i%100 == 0 {
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if len(files) != 4 || total > limit || total < limit/2 {
		t.Errorf("%d files with %d bytes, limit %d", len(files), total, limit)
	}
	events, err := l.Recent(t.Context(), audit.Filter{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		if want := fmt.Sprintf("h%d.example", 5000-len(events)+i); e.Host != want {
			t.Fatalf("event %d of %d is %s, want %s: a line was lost or moved", i, len(events), e.Host, want)
		}
	}
	if s := l.Stats(); s.Written != 5000 || s.Dropped != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestOpenKeepsWholeLinesAndMendsABrokenOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	e := full()
	if err := os.WriteFile(path, append(append(e.AppendJSON(nil), '\n'), `{"time":"2026-`...), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(path, 1<<20, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Record(audit.Event{Time: noon, Host: "new.example"})
	events, err := l.Recent(t.Context(), audit.Filter{}, 0)
	if err != nil || len(events) != 2 || events[0].Host != e.Host || events[1].Host != "new.example" {
		t.Errorf("after a crash the log has %v (%v)", events, err)
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"a directory": dir, "a symbolic link": link, "a missing directory": filepath.Join(dir, "no", "file"), "a device": os.DevNull} {
		if l, err := audit.Open(path, 1<<20, slog.New(slog.DiscardHandler)); err == nil {
			l.Close()
			t.Errorf("opening %s succeeds", name)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("opening %s: %v, which does not name it", name, err)
		}
	}
	if _, err := audit.Open(filepath.Join(dir, "x"), 0, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a limit of 0 bytes is taken")
	}
}

func TestRecentFilters(t *testing.T) {
	l, _ := open(t, 1<<20)
	at := func(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }
	for _, e := range []audit.Event{
		{Time: at(0), Kind: audit.KindDNS, Verdict: audit.Allow, Host: "example.com", Conn: "1"},
		{Time: at(1), Kind: audit.KindHTTPS, Verdict: audit.Deny, Host: "www.example.com", Conn: "2"},
		{Time: at(2), Kind: audit.KindDNS, Verdict: audit.Deny, Host: "notexample.com", Conn: "3"},
		{Time: at(3), Kind: audit.KindSSH, Verdict: audit.Deny, Host: "git.example.com", Conn: "4"},
	} {
		l.Record(e)
	}
	tests := map[string]struct {
		filter audit.Filter
		n      int
		want   string
	}{
		"everything":              {audit.Filter{}, 0, "1234"},
		"the last two":            {audit.Filter{}, 2, "34"},
		"denials":                 {audit.Filter{Denied: true}, 0, "234"},
		"the last denial":         {audit.Filter{Denied: true}, 1, "4"},
		"one kind":                {audit.Filter{Kind: audit.KindDNS}, 0, "13"},
		"a host and those below":  {audit.Filter{Host: "Example.COM."}, 0, "124"},
		"since a time, inclusive": {audit.Filter{Since: at(2)}, 0, "34"},
		"all at once":             {audit.Filter{Denied: true, Host: "example.com", Since: at(1)}, 1, "4"},
		"nothing":                 {audit.Filter{Host: "absent.example"}, 0, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			events, err := l.Recent(t.Context(), test.filter, test.n)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, e := range events {
				got += e.Conn
			}
			if got != test.want {
				t.Errorf("got events %q, want %q", got, test.want)
			}
		})
	}
}

func TestSubscribersGetWhatTheyAskedFor(t *testing.T) {
	l, _ := open(t, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	denials := l.Subscribe(ctx, audit.Filter{Denied: true})
	l.Record(audit.Event{Verdict: audit.Allow, Host: "a.example"})
	l.Record(audit.Event{Verdict: audit.Deny, Host: "b.example"})
	if e := <-denials; e.Host != "b.example" {
		t.Errorf("the subscriber gets %s first", e.Host)
	}
	cancel()
	for range denials { // ends when the channel is closed
	}
	l.Record(audit.Event{Verdict: audit.Deny})
	open := l.Subscribe(t.Context(), audit.Filter{})
	l.Close()
	if _, more := <-open; more {
		t.Error("a subscription outlives the log")
	}
	if _, more := <-l.Subscribe(t.Context(), audit.Filter{}); more {
		t.Error("a closed log takes subscribers")
	}
}

func TestASubscriberThatSleepsMissesEventsAndHoldsUpNothing(t *testing.T) {
	l, _ := open(t, 64<<20)
	events := l.Subscribe(t.Context(), audit.Filter{})
	const sent = 3000
	for range sent {
		l.Record(audit.Event{})
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Written != sent || s.Missed != uint64(sent-len(events)) || s.Missed == 0 {
		t.Errorf("stats %+v with %d queued", s, len(events))
	}
}

// TestFollowHasNoGapAndNoRepetition starts followers while events are recorded:
// past and live together must count without a step.
func TestFollowHasNoGapAndNoRepetition(t *testing.T) {
	l, _ := open(t, 64<<20)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Microsecond):
				l.Record(audit.Event{Time: noon, BytesUp: int64(i)})
			}
		}
	})
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		past, live, err := l.Follow(ctx, audit.Filter{}, 50)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			past = append(past, <-live)
		}
		cancel()
		for i := 1; i < len(past); i++ {
			if past[i].BytesUp != past[i-1].BytesUp+1 {
				t.Fatalf("event %d follows event %d", past[i].BytesUp, past[i-1].BytesUp)
			}
		}
	}
	close(stop)
	wg.Wait()
}

func BenchmarkRecord(b *testing.B) {
	l, _ := open(b, 64<<20)
	e := full()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Record(e)
		if i%1000 == 999 { // as fast as the disk, so that nothing is dropped
			if err := l.Flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(l.Stats().Dropped), "dropped")
}

func BenchmarkAppendJSON(b *testing.B) {
	e := full()
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendJSON(buf[:0])
	}
}
