package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestValidateAccepts(t *testing.T) {
	for name, request := range map[string]Request{
		"a reload":                   {Version: 1, Verb: VerbReload},
		"a status":                   {Version: 1, Verb: VerbStatus},
		"the whole log":              {Version: 1, Verb: VerbLog},
		"a narrow log":               {Version: 1, Verb: VerbLog, Follow: true, Denied: true, Host: "a.test", Since: time.Unix(1, 0), Limit: 5},
		"a grant":                    {Version: 1, Verb: VerbGrant, Kind: "https", Line: "a.test GET /x\t y", For: "30m"},
		"a revocation":               {Version: 1, Verb: VerbRevoke, Kind: "dns", Line: "a.test"},
		"a revocation of everything": {Version: 1, Verb: VerbRevoke, All: true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := request.Validate(); err != nil {
				t.Errorf("Validate: %v", err)
			}
		})
	}
}

func TestValidateRefuses(t *testing.T) {
	grant := Request{Version: 1, Verb: VerbGrant, Kind: "https", Line: "a.test", For: "30m"}
	with := func(change func(*Request)) Request {
		r := grant
		change(&r)
		return r
	}
	for name, test := range map[string]struct {
		request Request
		want    string
	}{
		"no version":                   {Request{Verb: VerbReload}, "version 0"},
		"a later version":              {Request{Version: 2, Verb: VerbReload}, "version 2"},
		"no verb":                      {Request{Version: 1}, "unknown verb"},
		"an unknown verb":              {Request{Version: 1, Verb: "shell"}, "unknown verb"},
		"a reload with a rule":         {Request{Version: 1, Verb: VerbReload, Line: "a.test"}, "does not take"},
		"a status that follows":        {Request{Version: 1, Verb: VerbStatus, Follow: true}, "does not take"},
		"a grant of everything":        {with(func(r *Request) { r.All = true }), "does not take"},
		"a grant of no kind":           {with(func(r *Request) { r.Kind = "" }), "unknown kind"},
		"a grant of an unknown kind":   {with(func(r *Request) { r.Kind = "icmp" }), "unknown kind"},
		"a grant without a rule":       {with(func(r *Request) { r.Line = " " }), "must have 1 to"},
		"a grant of two lines":         {with(func(r *Request) { r.Line = "a.test\n*" }), "line breaks"},
		"a grant with a return":        {with(func(r *Request) { r.Line = "a.test\r*" }), "line breaks"},
		"a grant with a NUL":           {with(func(r *Request) { r.Line = "a.test\x00" }), "line breaks"},
		"a grant without a life":       {with(func(r *Request) { r.For = "" }), "life of a grant"},
		"a grant with a bad life":      {with(func(r *Request) { r.For = "soon" }), "life of a grant"},
		"a grant that ended":           {with(func(r *Request) { r.For = "-5m" }), "between"},
		"a grant for ever":             {with(func(r *Request) { r.For = "100000h" }), "between"},
		"an overlong rule":             {with(func(r *Request) { r.Line = strings.Repeat("a", MaxLine+1) }), "must have 1 to"},
		"a revocation of rule and all": {Request{Version: 1, Verb: VerbRevoke, All: true, Kind: "dns", Line: "a.test"}, "not both"},
		"a revocation of nothing":      {Request{Version: 1, Verb: VerbRevoke}, "unknown kind"},
		"a log of negative length":     {Request{Version: 1, Verb: VerbLog, Limit: -1}, "number of events"},
		"a log without measure":        {Request{Version: 1, Verb: VerbLog, Limit: MaxLog + 1}, "number of events"},
		"a log of an overlong host":    {Request{Version: 1, Verb: VerbLog, Host: strings.Repeat("a", 256)}, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.request.Validate()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Validate = %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestReadRequestRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":               "",
		"an unfinished line":    `{"version":1,"verb":"reload"}`,
		"an empty line":         "\n",
		"an unknown field":      `{"version":1,"verb":"reload","shell":"id"}` + "\n",
		"two values":            `{"version":1,"verb":"reload"}{}` + "\n",
		"an array":              "[]\n",
		"a null":                "null\n",
		"a line beyond 64 KiB":  `{"version":1,"verb":"` + strings.Repeat("a", maxRequest) + "\"}\n",
		"a value of wrong type": `{"version":"1","verb":"reload"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			if request, err := ReadRequest(bufio.NewReader(strings.NewReader(text))); err == nil {
				t.Errorf("ReadRequest = %+v, want an error", request)
			}
		})
	}
}

func TestReadRequestReadsItsOwnLineOnly(t *testing.T) {
	reader := bufio.NewReader(strings.NewReader(`{"version":1,"verb":"status"}` + "\nrest"))
	request, err := ReadRequest(reader)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Request{Version: 1, Verb: VerbStatus}, request); diff != "" {
		t.Error(diff)
	}
	if rest, _ := io.ReadAll(reader); string(rest) != "rest" {
		t.Errorf("left %q, want %q", rest, "rest")
	}
}

// serve answers one request on a Unix socket with answer and hands the request over.
func serve(t *testing.T, answer func(net.Conn, Request)) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		request, err := ReadRequest(bufio.NewReader(conn))
		if err != nil {
			t.Errorf("ReadRequest: %v", err)
		}
		answer(conn, request)
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return Dial(path)
}

func TestClientAsksAndReads(t *testing.T) {
	want := ReloadResult{SchemaVersion: 1, Generation: 7, Changed: map[string]Change{"dns": {Added: []string{"a.test"}}}}
	var asked Request
	client := serve(t, func(conn net.Conn, request Request) {
		asked = request
		_ = Write(conn, Response{Version: Version, Reload: &want, End: true})
	})
	got, err := client.Grant(t.Context(), "dns", "a.test", 30*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Request{Version: 1, Verb: VerbGrant, Kind: "dns", Line: "a.test", For: "30m0s"}, asked); diff != "" {
		t.Error(diff)
	}
}

func TestClientTellsARefusal(t *testing.T) {
	client := serve(t, func(conn net.Conn, _ Request) {
		_ = Write(conn, Response{Version: Version, Error: &Error{Code: CodeInvalid, Message: "no"}, End: true})
	})
	_, err := client.Reload(t.Context())
	var refusal *Error
	if !errors.As(err, &refusal) || refusal.Code != CodeInvalid {
		t.Errorf("Reload = %v, want the daemon's refusal", err)
	}
}

func TestClientTellsACutLog(t *testing.T) {
	client := serve(t, func(conn net.Conn, _ Request) {
		_ = Write(conn, Response{Version: Version, Event: json.RawMessage(`{"host":"a.test"}`)})
	})
	var seen []string
	err := client.Log(t.Context(), LogQuery{}, func(event json.RawMessage) error {
		seen = append(seen, string(event))
		return nil
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Log = %v, want %v", err, io.ErrUnexpectedEOF)
	}
	if diff := cmp.Diff([]string{`{"host":"a.test"}`}, seen); diff != "" {
		t.Error(diff)
	}
}

func TestClientEndsAFollowedLogWithItsContext(t *testing.T) {
	gone := make(chan struct{})
	client := serve(t, func(conn net.Conn, _ Request) {
		_ = Write(conn, Response{Version: Version, Event: json.RawMessage(`{}`)})
		_, _ = conn.Read(make([]byte, 1)) // returns when the client hangs up
		close(gone)
	})
	ctx, cancel := context.WithCancel(t.Context())
	if err := client.Log(ctx, LogQuery{Follow: true}, func(json.RawMessage) error { cancel(); return nil }); err != nil {
		t.Errorf("Log = %v, want nil", err)
	}
	<-gone
}

func TestClientRefusesAnotherVersion(t *testing.T) {
	client := serve(t, func(conn net.Conn, _ Request) {
		_ = Write(conn, Response{Version: 2, Status: &Status{}, End: true})
	})
	if _, err := client.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("Status = %v, want an error with the version", err)
	}
}

func TestClientSaysWhatToDoWithoutADaemon(t *testing.T) {
	_, err := Dial(filepath.Join(t.TempDir(), "none.sock")).Status(t.Context())
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "rootcell-firewall") {
		t.Errorf("Status = %v, want a missing socket and a hint", err)
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte(`{"version":1,"verb":"reload"}` + "\n"))
	f.Add([]byte(`{"version":1,"verb":"grant","kind":"dns","line":"a.test","for":"5m"}` + "\n"))
	f.Add([]byte(`{"version":1,"verb":"log","since":"2026-11-22T00:00:00Z","limit":5}` + "\n"))
	f.Add([]byte(`{"version":1,"verb":"revoke","all":true}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		request, err := ReadRequest(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			return
		}
		if strings.ContainsAny(request.Line, "\r\n\x00") {
			t.Fatalf("accepted a rule with a line break: %q", request.Line)
		}
		// What was accepted means the same when it is sent again.
		var again bytes.Buffer
		if err := Write(&again, request); err != nil {
			t.Fatal(err)
		}
		second, err := ReadRequest(bufio.NewReader(&again))
		if err != nil {
			t.Fatalf("refused its own message %q: %v", again.String(), err)
		}
		if diff := cmp.Diff(request, second); diff != "" {
			t.Fatal(diff)
		}
	})
}
