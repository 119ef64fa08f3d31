//go:build linux

package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// inspected is what the Node.js origin says arrived.
type inspected struct {
	Method, URL, Version string
	Headers, Trailers    []string
	Length               int
	SHA256               string
}

// answered is what the Node.js client says came back.
type answered struct {
	Status            int
	Reason, Text      string
	Headers, Trailers []string
	Interim           [][]any
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("decoding %q: %v", shortened(text), err)
	}
	return v
}

// nodeClient runs one task of the Node.js client.
func (l *lab) nodeClient(t *testing.T, task, host string, flags ...string) string {
	t.Helper()
	return l.do(t, "node", append(flags, script(t, "client.mjs"), task, host)...)
}

// pythonClient runs one task of the client from Python's standard library.
func (l *lab) pythonClient(t *testing.T, task, host string) string {
	t.Helper()
	return l.do(t, "python3", script(t, "http_client.py"), task, host)
}

const nodeHost = "node.test.example"

func TestFidelityHTTP1(t *testing.T) {
	l := newLab(t, netlab.Options{})
	l.node(t, nodeHost)
	t.Run("a request arrives as it was sent", func(t *testing.T) {
		conn := l.tls(t, nodeHost, "http/1.1")
		const target = "/inspect/a%2Fb//c/../d;x=1?q=%zz&r='\"<>[]|^"
		answer := exchange(t, conn, "POST "+target+" HTTP/1.1\r\nx-ODD:  spaced \r\nhOsT: "+nodeHost+"\r\nX-odd: 2\r\nAccept-Encoding: br, x\r\ncontent-LENGTH: 3\r\nX-High: \xc3\xa9\r\nConnection: close\r\n\r\nabc")
		_, body, _ := strings.Cut(answer, "\r\n\r\n")
		body = body[strings.Index(body, "{") : strings.LastIndex(body, "}")+1]
		got := decode[inspected](t, body)
		if got.Method != "POST" || got.URL != target || got.Version != "1.1" || got.Length != 3 {
			t.Errorf("arrived %+v", got)
		}
		want := []string{"x-ODD", "spaced", "hOsT", nodeHost, "X-odd", "2", "Accept-Encoding", "br, x", "content-LENGTH", "3", "X-High", "\u00c3\u00a9", "Connection", "close"}
		if diff := cmp.Diff(want, got.Headers); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a response arrives as it was sent", func(t *testing.T) {
		got := exchange(t, l.tls(t, nodeHost, "http/1.1"), "GET /headers HTTP/1.1\r\nHost: "+nodeHost+"\r\nConnection: close\r\n\r\n")
		const want = "HTTP/1.1 200 Quite Fine\r\nX-zETA: 1\r\ncontent-length: 2\r\nX-alpha: 2\r\nX-zETA: 3\r\nConnection: close\r\n\r\nok"
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("keep-alive", func(t *testing.T) {
		if got := l.pythonClient(t, "keep_alive", nodeHost); got != "1\n" {
			t.Errorf("Python used %s connections", got)
		}
		if got := decode[map[string]int](t, l.nodeClient(t, "keepalive", nodeHost)); got["sockets"] != 1 {
			t.Errorf("Node used %v", got)
		}
	})
	t.Run("pipelining", func(t *testing.T) {
		if got := l.pythonClient(t, "pipelining", nodeHost); got != "True\n" {
			t.Errorf("answers out of order: %s", got)
		}
	})
	t.Run("chunked both ways, with trailers", func(t *testing.T) {
		if got := l.pythonClient(t, "chunked_upload", nodeHost); got != "80\n" {
			t.Errorf("%s bytes arrived", got)
		}
		res := decode[answered](t, l.nodeClient(t, "chunkedWithTrailers", nodeHost))
		req := decode[inspected](t, res.Text)
		if req.Length != 6 || !cmp.Equal(req.Trailers, []string{"X-Sum", "42"}) {
			t.Errorf("arrived %+v", req)
		}
		if r := l.do(t, "curl", "-sS", "--raw", "--http1.1", "https://"+nodeHost+"/chunks"); r != "3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n" {
			t.Errorf("the chunks changed: %q", r)
		}
		if res := decode[answered](t, l.nodeClient(t, "trailers", nodeHost)); !cmp.Equal(res.Trailers, []string{"X-Checksum", "abc"}) || res.Text != "body" {
			t.Errorf("got %+v", res)
		}
	})
	t.Run("100-continue honoured", func(t *testing.T) {
		r := l.try(t, "curl", "-sSv", "--http1.1", "--expect100-timeout", "20", "-H", "Expect: 100-continue", "-d", "hello", "https://"+nodeHost+"/inspect")
		if got := decode[inspected](t, r.stdout); got.Length != 5 || strings.Count(r.stderr, "< HTTP/1.1 100 Continue") != 1 {
			t.Errorf("arrived %+v: %s", got, r.stderr)
		}
	})
	t.Run("100-continue refused", func(t *testing.T) {
		r := l.try(t, "curl", "-sSv", "--http1.1", "--expect100-timeout", "20", "-H", "Expect: 100-continue", "-d", "hello", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}", "https://"+nodeHost+"/refuse")
		if r.stdout != "417 0" || strings.Contains(r.stderr, "100 Continue") {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("HEAD, 204 and 304 on one connection", func(t *testing.T) {
		got := l.do(t, "curl", "-sS", "--http1.1", "-w", "%{http_code} %{size_download} %{num_connects}\n", "-I", "-o", "/dev/null", "https://"+nodeHost+"/head",
			"--next", "-sS", "--http1.1", "-w", "%{http_code} %{size_download} %{num_connects}\n", "https://"+nodeHost+"/204", "https://"+nodeHost+"/304", "https://"+nodeHost+"/echo")
		if got != "200 0 1\n204 0 0\n304 0 0\n200 0 0\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("103 early hints", func(t *testing.T) {
		res := decode[answered](t, l.nodeClient(t, "hints", nodeHost))
		if fmt.Sprint(res.Interim) != "[[103 </style.css>; rel=preload; as=style]]" || res.Text != "final" {
			t.Errorf("got %+v", res)
		}
	})
	t.Run("server-sent events are not held back", func(t *testing.T) {
		if got := l.nodeClient(t, "events", nodeHost); got != `{"seen":["1","2","3","4","5"]}`+"\n" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("a body that is cut short is seen as cut short", func(t *testing.T) {
		if got := l.pythonClient(t, "truncated", nodeHost); got != "/truncated?length incomplete 1000\n/truncated incomplete 1000\n" {
			t.Errorf("Python: %q", got)
		}
		for path, code := range map[string]int{"/truncated": 18, "/truncated?length": 18} {
			if r := l.try(t, "curl", "-sS", "--http1.1", "-o", "/dev/null", "https://"+nodeHost+path); r.code != code && r.code != 56 {
				t.Errorf("curl %s: %+v", path, r)
			}
		}
	})
	t.Run("413 in the middle of an upload", func(t *testing.T) {
		r := l.shell(t, "head -c 20000000 /dev/zero | curl -sS --http1.1 -H Expect: -T - -w ' %{http_code}' https://"+nodeHost+"/limit")
		if !strings.Contains(r.stdout, "too large 413") {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("the client's half is closed before the answer", func(t *testing.T) {
		conn := l.tls(t, nodeHost, "http/1.1")
		_, _ = io.WriteString(conn, "POST /echo HTTP/1.1\r\nHost: "+nodeHost+"\r\nContent-Length: 4\r\n\r\nlast")
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") || !strings.Contains(string(answer), "last") {
			t.Errorf("%q, %v", answer, err)
		}
	})
	t.Run("256 MiB each way in flat memory", func(t *testing.T) { l.largeBodies(t, "--http1.1", nodeHost) })
}

// shell runs a line of shell as a session of the agent.
func (l *lab) shell(t *testing.T, line string) result {
	t.Helper()
	return l.try(t, "sh", "-c", line)
}

// largeBodies moves 256 MiB up and 256 MiB down and holds the daemon's peak memory against what it was before.
func (l *lab) largeBodies(t *testing.T, version, host string) {
	t.Helper()
	const size = 256 << 20
	_ = l.do(t, "curl", "-sS", version, "-o", "/dev/null", "https://"+host+"/echo")
	status := fmt.Sprintf("/proc/%d/", l.daemon.PID())
	if err := os.WriteFile(status+"clear_refs", []byte("5"), 0); err != nil { // forget the peak
		t.Fatal(err)
	}
	before := l.memory(t, "VmRSS")
	down := l.shell(t, fmt.Sprintf("curl -sS %s 'https://%s/big?n=%d' | wc -c", version, host, size))
	up := l.shell(t, fmt.Sprintf("head -c %d /dev/zero | curl -sS %s -T - https://%s/count", size, version, host))
	if strings.TrimSpace(down.stdout) != strconv.Itoa(size) || up.stdout != strconv.Itoa(size) {
		t.Errorf("down %+v, up %+v", down, up)
	}
	grown := l.memory(t, "VmHWM") - before
	t.Logf("%s: resident memory grew from %d KiB by %d KiB at its peak", version, before, grown)
	if grown > 32<<10 {
		t.Errorf("the daemon grew by %d KiB", grown)
	}
}

// memory is a figure of the daemon's /proc/PID/status, in KiB.
func (l *lab) memory(t *testing.T, field string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.daemon.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == field+":" {
			n, err := strconv.Atoi(words[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s", field)
	return 0
}

func TestFidelityFiles(t *testing.T) {
	l := newLab(t, netlab.Options{})
	dir := filepath.Join(l.Dir, "files")
	content := make([]byte, 3<<20)
	_, _ = rand.Read(content)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(bytes.Repeat([]byte("a fine text\n"), 10000))
	_ = z.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"blob": content, "text.gz": zipped.Bytes(), "text": bytes.Repeat([]byte("a fine text\n"), 10000)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l.nginx(t, "nginx.test.example", "", dir, "gzip_static on; gzip on; gzip_types text/plain; location /limit { client_max_body_size 1k; proxy_pass http://127.0.0.1:9; }")
	l.nginx(t, "nginx2.test.example", "http2", dir, "location /limit { client_max_body_size 1k; proxy_pass http://127.0.0.1:9; }")
	l.origin(t, "python.test.example", 443, func(local, pemFile string) []string {
		return []string{"python3", "-c", `
import http.server, os, ssl, sys
os.chdir(sys.argv[3])
server = http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()`, local, pemFile, dir}
	})
	sum := sha256.Sum256(content)
	for _, host := range []string{"nginx", "nginx2", "python"} {
		t.Run(host+" whole", func(t *testing.T) {
			r := l.shell(t, "curl -sS https://"+host+".test.example/blob | sha256sum")
			if !strings.HasPrefix(r.stdout, hex.EncodeToString(sum[:])) {
				t.Errorf("got %+v", r)
			}
		})
	}
	for _, host := range []string{"nginx", "nginx2"} {
		url := "https://" + host + ".test.example/"
		t.Run(host+" ranges", func(t *testing.T) {
			got := l.do(t, "curl", "-sS", "-w", " %{http_code}", "-r", "1000000-1000099", url+"blob")
			if got != string(content[1000000:1000100])+" 206" {
				t.Errorf("%d bytes", len(got))
			}
			part := filepath.Join(l.Dir, host+".part")
			if err := os.WriteFile(part, content[:1<<20], 0o644); err != nil {
				t.Fatal(err)
			}
			l.do(t, "curl", "-sS", "-C", "-", "-o", part, url+"blob")
			if resumed, err := os.ReadFile(part); err != nil || !bytes.Equal(resumed, content) {
				t.Errorf("the resumed download differs: %v", err)
			}
		})
		t.Run(host+" not modified", func(t *testing.T) {
			head := l.do(t, "curl", "-sSI", url+"blob")
			_, etag, _ := strings.Cut(strings.ToLower(head), "etag: ")
			etag, _, _ = strings.Cut(etag, "\r\n")
			if got := l.do(t, "curl", "-sS", "-w", "%{http_code}", "-H", "If-None-Match: "+etag, url+"blob"); got != "304" {
				t.Errorf("%d bytes for %s", len(got), etag)
			}
		})
		t.Run(host+" 413 before the upload is over", func(t *testing.T) {
			if r := l.try(t, "curl", "-sS", "-H", "Expect:", "-T", filepath.Join(dir, "blob"), "-o", "/dev/null", "-w", "%{http_code}", url+"limit"); r.stdout != "413" {
				t.Errorf("got %+v", r)
			}
		})
	}
	t.Run("a compressed body is not touched", func(t *testing.T) {
		r := l.shell(t, "curl -sS -H 'Accept-Encoding: gzip' https://nginx.test.example/text | cmp - "+filepath.Join(dir, "text.gz"))
		if r.code != 0 {
			t.Errorf("got %+v", r)
		}
		if got := l.do(t, "curl", "-sS", "--compressed", "https://nginx.test.example/text"); got != strings.Repeat("a fine text\n", 10000) {
			t.Errorf("%d bytes", len(got))
		}
		// Nobody asked for compression: nothing may ask for it on the way.
		if head := l.do(t, "curl", "-sS", "-D", "-", "-o", "/dev/null", "https://nginx.test.example/text"); strings.Contains(strings.ToLower(head), "content-encoding") {
			t.Errorf("compressed unasked: %s", head)
		}
	})
	t.Run("a body that ends with its connection", func(t *testing.T) {
		r := l.do(t, "curl", "-sSi", "https://python.test.example/text")
		if !strings.HasPrefix(r, "HTTP/1.0 200 OK\r\n") || !strings.HasSuffix(r, "a fine text\n") {
			t.Errorf("got %s", shortened(r))
		}
	})
	t.Run("openssl as a client", func(t *testing.T) {
		cmd := l.asAgent(t.Context(), t, l.agentEnv(t), "openssl", "s_client", "-quiet", "-verify_return_error", "-servername", "nginx.test.example", "-connect", "nginx.test.example:443")
		cmd.Stdin = strings.NewReader("GET /text HTTP/1.1\r\nHost: nginx.test.example\r\nConnection: close\r\n\r\n")
		out, err := cmd.Output()
		if !bytes.HasPrefix(out, []byte("HTTP/1.1 200 OK\r\n")) {
			t.Errorf("%v: %s", err, shortened(string(out)))
		}
	})
}
