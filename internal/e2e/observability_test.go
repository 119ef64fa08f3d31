//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestObservability(t *testing.T) {
	c := newCell(t, netlab.Options{})
	text := func(t *testing.T) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(c.Dir, "log/audit.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Run("J1 J2 nothing forges a line or steers a terminal", func(t *testing.T) {
		const forged = "2026-11-22 ALLOW evil"
		const escape = "\x1b]0;owned\a\x1b[2J\x9b31m\u202e"
		c.mark(t)
		c.curl(t, "https://ok.test.example/%0a"+strings.ReplaceAll(forged, " ", "%20"), "-H", "User-Agent: "+escape)
		for _, target := range []string{"/" + escape, "/a\r\n" + forged, "/\xff\xfe", "/" + strings.Repeat("long", 50000)} {
			exchange(t, c.tls(t, "ok.test.example"), "GET "+target+" HTTP/1.1\r\nHost: ok.test.example\r\nConnection: close\r\n\r\n")
			exchange(t, c.tls(t, "ok.test.example"), "GET / HTTP/1.1\r\nHost: "+target[1:]+"\r\nConnection: close\r\n\r\n")
			exchange(t, c.tls(t, "ok.test.example"), target+" / HTTP/1.1\r\nHost: ok.test.example\r\nConnection: close\r\n\r\n")
			exchange(t, c.raw(t, netlab.FirewallAddr+":8080"), "CONNECT "+target[1:]+":22 HTTP/1.1\r\nHost: x\r\n\r\n")
			c.say(t, renamedHello(t, target[1:min(len(target), 60)]))
			c.ask(t, rawQuery(0x0100, 1, 1, target[1:min(len(target), 60)], "ok", "test", "example"))
		}
		_, _, conn := c.connect(t, "sshok.test.example:22")
		_, _ = io.WriteString(conn, "SSH-2.0-"+escape+"\r\n")
		c.denied(t, "malformed")
		events := c.daemon.AuditLog(t) // every line is one JSON value, or this fails
		log := text(t)
		for i, line := range bytes.Split(bytes.TrimSpace(log), []byte("\n")) {
			if bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e }) || !utf8.Valid(line) {
				t.Errorf("line %d is not clean: %q", i, line)
			}
			if len(line) > 16<<10 {
				t.Errorf("line %d has %d bytes", i, len(line))
			}
		}
		if bytes.Contains(log, []byte("\n"+forged)) || len(events) == 0 {
			t.Error("a line was forged")
		}
	})
	t.Run("J3 credentials and bodies are not in the log", func(t *testing.T) {
		const canary = "CANARY-SECRET-7731"
		c.curl(t, "-H", "Authorization: Bearer "+canary, "-H", "X-Api-Key: "+canary, "-b", "session="+canary, "-d", canary, "-u", "user:"+canary, "https://ok.test.example/j3")
		c.curl(t, "-H", "Authorization: Bearer "+canary, "-d", canary, "https://no.test.example/j3")
		c.daemon.AwaitAudit(t, map[string]any{"path": "/j3", "verdict": "deny"})
		if bytes.Contains(text(t), []byte(canary)) {
			t.Error("the log has the canary")
		}
	})
	t.Run("J4 nothing of a body is decoded on the way", func(t *testing.T) {
		bomb := filepath.Join(t.TempDir(), "bomb.gz")
		if err := os.WriteFile(bomb, bytes.Repeat([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xff}, 1<<16), 0o644); err != nil {
			t.Fatal(err)
		}
		var before, after struct{ Memory struct{ Heap uint64 } }
		c.daemon.Ctl(t, &before, "status")
		for _, kind := range []string{"application/json", "text/event-stream", "application/vnd.amazon.eventstream"} {
			if got := c.code(t, "-H", "Content-Encoding: gzip", "-H", "Content-Type: "+kind, "--data-binary", "@"+bomb, "https://ok.test.example/bomb"); got != "200" {
				t.Errorf("%s: %s", kind, got)
			}
		}
		c.daemon.Ctl(t, &after, "status")
		if grown := int64(after.Memory.Heap) - int64(before.Memory.Heap); grown > 16<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	})
	t.Run("J6 every flow has a record, and one that was not looked at says so", func(t *testing.T) {
		c.mark(t)
		_, reader, conn := c.connect(t, "sshok.test.example:22")
		_, _ = io.WriteString(conn, "SSH-2.0-x\r\n")
		_, _ = reader.ReadString('\n')
		_ = conn.Close()
		c.code(t, "https://ok.test.example/j6")
		c.code(t, "https://scoped.test.example/j6")
		c.agent(t, "dig", "@"+netlab.FirewallAddr, "ok.test.example")
		for _, want := range []map[string]any{
			{"kind": "ssh", "verdict": "allow", "opaque": "true", "host": "sshok.test.example"},
			{"kind": "https", "verdict": "allow", "path": "/j6", "method": "GET"},
			{"kind": "https", "verdict": "deny", "path": "/j6", "reason": "path-rule", "host": "scoped.test.example"},
			{"kind": "dns", "verdict": "allow", "host": "ok.test.example"},
		} {
			e := c.daemon.AwaitAudit(t, want)
			for _, key := range []string{"time", "instance", "generation", "conn", "port", "duration_ms"} {
				if _, ok := e[key]; !ok {
					t.Errorf("no %s in %v", key, e)
				}
			}
			if want["kind"] == "https" && e["opaque"] == true {
				t.Errorf("an inspected request is marked otherwise: %v", e)
			}
		}
	})
	t.Run("J6 a connection that was refused before it had a name", func(t *testing.T) {
		for reason, hello := range map[string][]byte{"no-sni": rawHello(), "not-tls": []byte("\x00\x00\x00\x00\x00\x00"), "cleartext": []byte("GET / HTTP/1.1\r\n\r\n")} {
			c.mark(t)
			c.say(t, hello)
			c.denied(t, reason)
		}
	})
}

// TestAuditKeepsItsSize holds that a flood rotates the log instead of filling the disk, and loses nothing silently.
func TestAuditKeepsItsSize(t *testing.T) {
	c := newCell(t, netlab.Options{MaxAuditBytes: 256 << 10})
	t.Run("J5 a flood of denials", func(t *testing.T) {
		conn, err := c.Agent.Dial(t.Context(), "udp4", netlab.FirewallAddr+":53")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		for i := range 20000 {
			_, _ = conn.Write(rawQuery(0x0100, 1, 1, fmt.Sprintf("n%d", i), "denied", "example"))
		}
		if got := c.code(t, "https://ok.test.example/after-the-flood"); got != "200" {
			t.Errorf("status %s", got)
		}
		// What is left of the flood in the socket may still push a line out of so small a log; so ask until one is seen.
		netlab.Await(t, 15*time.Second, "the audit line of a request after the flood", func() bool {
			c.code(t, "https://ok.test.example/after-the-flood")
			for _, e := range c.daemon.AuditLog(t) {
				if e["path"] == "/after-the-flood" {
					return true
				}
			}
			return false
		})
		files, err := filepath.Glob(filepath.Join(c.Dir, "log", "*"))
		if err != nil {
			t.Fatal(err)
		}
		var total int64
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				total += info.Size()
			}
		}
		if total > 300<<10 {
			t.Errorf("the log takes %d bytes in %d files", total, len(files))
		}
		var status struct {
			Audit struct {
				Written, Dropped uint64
				Error            string
			}
		}
		if c.daemon.Ctl(t, &status, "status"); status.Audit.Error != "" || status.Audit.Written == 0 {
			t.Errorf("audit %+v", status.Audit)
		}
	})
}
