//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

func TestFidelityHTTP2(t *testing.T) {
	l := newLab(t, netlab.Options{})
	l.node(t, nodeHost)
	t.Run("a request arrives as it was sent, but for the order of its header", func(t *testing.T) {
		const target = "/inspect/a%2Fb//c/../d;x=1?q=%zz&r='\"<>[]|^"
		got := decode[inspected](t, l.do(t, "curl", "-sS", "--http2", "--globoff", "--path-as-is", "-H", "X-Odd: 1", "-H", "X-Odd: 2", "-H", "Accept-Encoding: br, x", "-d", "abc", "https://"+nodeHost+target))
		if got.Method != "POST" || got.URL != target || got.Version != "2.0" || got.Length != 3 {
			t.Errorf("arrived %+v", got)
		}
		fields := map[string][]string{}
		for i := 0; i+1 < len(got.Headers); i += 2 {
			fields[got.Headers[i]] = append(fields[got.Headers[i]], got.Headers[i+1])
		}
		delete(fields, "user-agent")
		want := map[string][]string{
			":method": {"POST"}, ":path": {target}, ":scheme": {"https"}, ":authority": {nodeHost}, "accept": {"*/*"},
			"x-odd": {"1", "2"}, "accept-encoding": {"br, x"}, "content-length": {"3"}, "content-type": {"application/x-www-form-urlencoded"},
		}
		if diff := cmp.Diff(want, fields); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("200 streams at once on one connection", func(t *testing.T) {
		if got := l.nodeClient(t, "streams", nodeHost); got != `{"intact":200}`+"\n" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("h2load", func(t *testing.T) {
		got := l.do(t, "h2load", "-n", "2000", "-c", "4", "-m", "50", "https://"+nodeHost+"/echo")
		if !strings.Contains(got, "2000 succeeded, 0 failed, 0 errored") {
			t.Errorf("got %s", got)
		}
	})
	t.Run("nghttp", func(t *testing.T) {
		if got := l.do(t, "nghttp", "https://"+nodeHost+"/chunks"); got != "onetwothree" {
			t.Errorf("got %s", shortened(got))
		}
	})
	t.Run("trailers both ways", func(t *testing.T) {
		if got := l.nodeClient(t, "trailers2", nodeHost); got != `{"up":["x-sum","42"],"down":"abc"}`+"\n" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("100-continue honoured and refused", func(t *testing.T) {
		if got := l.nodeClient(t, "expect2", nodeHost); got != `{"/inspect":[200,true],"/refuse":[417,false]}`+"\n" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("103 early hints", func(t *testing.T) {
		if got := l.nodeClient(t, "hints2", nodeHost); got != `{"interim":[[103,"</style.css>; rel=preload; as=style"]],"text":"final"}`+"\n" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("server-sent events are not held back", func(t *testing.T) {
		if got := l.nodeClient(t, "events2", nodeHost); got != `{"seen":["1","2","3","4","5"]}`+"\n" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("HEAD, 204 and 304", func(t *testing.T) {
		const format = "%{http_code} %{size_download} %{http_version}\n"
		got := l.do(t, "curl", "-sS", "--http2", "-w", format, "-I", "-o", "/dev/null", "https://"+nodeHost+"/head",
			"--next", "-sS", "--http2", "-w", format, "https://"+nodeHost+"/204", "https://"+nodeHost+"/304")
		if got != "200 0 2\n204 0 2\n304 0 2\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a body that is cut short is seen as cut short", func(t *testing.T) {
		if got := l.nodeClient(t, "truncated2", nodeHost); !strings.Contains(got, `"error":"ERR_HTTP2_STREAM_ERROR"`) {
			t.Errorf("Node: %s", got)
		}
		if r := l.try(t, "curl", "-sS", "--http2", "-o", "/dev/null", "https://"+nodeHost+"/truncated"); r.code != 92 {
			t.Errorf("curl: %+v", r)
		}
	})
	t.Run("413 in the middle of an upload", func(t *testing.T) {
		r := l.shell(t, "head -c 20000000 /dev/zero | curl -sS --http2 -T - -w ' %{http_code}' https://"+nodeHost+"/limit")
		if !strings.Contains(r.stdout, "too large 413") {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("256 MiB each way in flat memory", func(t *testing.T) { l.largeBodies(t, "--http2", nodeHost) })
}

func TestFidelityGRPC(t *testing.T) {
	l := newLab(t, netlab.Options{})
	l.needsModules(t, "grpc")
	const host = "grpc.test.example"
	l.origin(t, host, 443, func(local, pemFile string) []string {
		return []string{"python3", script(t, "grpc_origin.py"), local, pemFile}
	})
	got := l.do(t, "python3", script(t, "grpc_client.py"), host, l.daemon.CAFile)
	const want = "unary cba 3\nbidirectional 100 end\nfailing FAILED_PRECONDITION not now\ncancelled CANCELLED\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFidelityWebSocket(t *testing.T) {
	l := newLab(t, netlab.Options{})
	l.needsModules(t, "websockets")
	const host = "ws.test.example"
	l.origin(t, host, 443, func(local, pemFile string) []string {
		return []string{"python3", script(t, "websocket_origin.py"), local, pemFile}
	})
	t.Run("Python", func(t *testing.T) {
		if got := l.do(t, "python3", script(t, "websocket_client.py"), host); got != "hello\n1000000\npong\n1000\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("Node", func(t *testing.T) {
		flags := []string{"--experimental-websocket"} // the default from 22 on
		if r := l.try(t, "node", append(flags, "-e", "WebSocket")...); r.code != 0 {
			t.Skipf("this Node.js has no WebSocket client: %s", r.stderr)
		}
		if got := l.nodeClient(t, "websocket", host, flags...); got != fmt.Sprintf("[%q,100000,1000]\n", "hello") {
			t.Errorf("got %q", got)
		}
	})
}
