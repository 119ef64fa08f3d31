package httpproxy_test

import (
	"context"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRealClients runs the programs that agents use, where they are installed.
func TestRealClients(t *testing.T) {
	instance, _ := authority(t)
	w := build(t, nil, func(c *httpConfig, _ *sink) { c.Leaves, c.DenialLeaves = instance, instance })
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: instance.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(w.addr)
	if err != nil {
		t.Fatal(err)
	}
	curl := func(args ...string) []string {
		connect := []string{"curl", "-sS", "--cacert", ca}
		for _, name := range []string{ok, denied, scoped} {
			connect = append(connect, "--connect-to", name+":443:127.0.0.1:"+port)
		}
		return append(connect, args...)
	}
	const python = `
import socket, ssl, sys
port, name, ca = int(sys.argv[1]), sys.argv[2], sys.argv[3]
ctx = ssl.create_default_context(cafile=ca)
with socket.create_connection(("127.0.0.1", port)) as raw, ctx.wrap_socket(raw, server_hostname=name) as s:
    s.sendall(b"GET /python HTTP/1.1\r\nHost: " + name.encode() + b"\r\nConnection: close\r\n\r\n")
    data = b""
    while chunk := s.recv(4096):
        data += chunk
    print(data.decode())
`
	const node = `
const [port, name, ca] = process.argv.slice(1);
require("https").get({host: "127.0.0.1", port, servername: name, path: "/node", headers: {host: name}, ca: require("fs").readFileSync(ca)},
  r => r.on("data", d => process.stdout.write(d)));
`
	tests := map[string]struct {
		argv []string
		want string
	}{
		"curl over HTTP/2":          {curl("https://" + ok + "/curl"), "HTTP/2.0 GET /curl"},
		"curl over HTTP/1.1":        {curl("--http1.1", "https://"+ok+"/curl"), "HTTP/1.1 GET /curl"},
		"curl uploads":              {curl("--http1.1", "-H", "Expect: 100-continue", "--data-binary", "@"+ca, "https://"+ok+"/up"), "HTTP/1.1 POST /up"},
		"curl with dots in a path":  {curl("--path-as-is", "https://"+scoped+"/public/../x"), "(ambiguous-path)"},
		"curl on a denied name":     {curl("https://" + denied + "/"), "rootcell allow " + denied},
		"curl on a denied name, h1": {curl("--http1.1", "-d", "body", "https://"+denied+"/"), "rootcell allow " + denied},
		"python":                    {[]string{"python3", "-c", python, port, ok, ca}, "HTTP/1.1 GET /python"},
		"node":                      {[]string{"node", "-e", node, port, ok, ca}, "HTTP/1.1 GET /node"},
		"A21 openssl, exact leaf": {[]string{"sh", "-c", "openssl s_client -connect 127.0.0.1:" + port + " -servername " + ok +
			" -CAfile " + ca + " </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName"}, "DNS:" + ok + "\n"},
	}
	for id, test := range tests {
		t.Run(id, func(t *testing.T) {
			if _, err := exec.LookPath(test.argv[0]); err != nil {
				t.Skipf("%s is not installed", test.argv[0])
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, test.argv[0], test.argv[1:]...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), test.want) {
				t.Errorf("%v\n%s\nwant %q", err, out, test.want)
			}
		})
	}
}
