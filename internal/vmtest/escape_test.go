//go:build linux

package vmtest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// escape tries, as root in the agent, every way round the firewall that owning the machine gives, and asserts that the far
// side and the host's own services saw none of it.
func escape(t *testing.T, h *host) {
	h.world.Forget()
	ln, err := h.ns.Listen("tcp4", "0.0.0.0:4990") // a service of the host, on loopback and on its own address
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	reached := make(chan string, 16)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			reached <- c.RemoteAddr().String()
			_ = c.Close()
		}
	}()
	// Each line restores what it changed, so that the way in stays open.
	const connect = `try() { timeout 3 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null && echo "REACHED $1 $2"; }; `
	lines := map[string]string{}
	for name, line := range map[string]string{
		"the user-mode gateway and its services": `for a in 10.0.2.2 10.0.2.3 10.0.2.15; do for p in 22 53 80 4990; do try $a $p; done; done`,
		"the host's own address":                 `for p in 22 80 4990; do try ` + netlab.UplinkAddr + ` $p; done`,
		"the far side on every other port":       `for p in 22 25 53 80 853 2222 8443 9418; do try ` + farSide + ` $p; done`,
		"the firewall's other ports":             `fw=$(ip route | awk '/^default/{print $3}'); for p in 22 111 2019 6060 8081 9090; do try $fw $p; done`,
		"a new address and route on the link": `ip addr add 10.0.2.77/24 dev cell; ip route add ` + farSide + `/32 dev cell; try 10.0.2.2 4990; try ` + farSide +
			` 80; ip route del ` + farSide + `/32 dev cell; ip addr del 10.0.2.77/24 dev cell`,
		"every neighbour of the segment as a router": `net=$(ip -o -4 addr show cell | awk '{print $4}' | cut -d. -f1-3); for i in 1 2 3 10 254; do ip route replace ` + farSide +
			`/32 via $net.$i dev cell 2>/dev/null && try ` + farSide + ` 80; ip route del ` + farSide + `/32 2>/dev/null; done`,
		"another interface": `ip link add v0 link cell type macvlan mode bridge 2>/dev/null && { ip addr add 10.0.2.99/24 dev v0; ip link set v0 up; try 10.0.2.2 4990; ip link del v0; }`,
		"IPv6 switched on":  `sysctl -qw net.ipv6.conf.cell.disable_ipv6=0; ip -6 addr add fec0::99/64 dev cell; for a in fec0::2 fec0::3; do try $a 4990; try $a 53; done; sysctl -qw net.ipv6.conf.cell.disable_ipv6=1`,
		"name servers abroad": `for s in 10.0.2.3 ` + farSide + `; do timeout 4 python3 - "$s" <<'P'
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)
s.sendto(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x06canary\x04test\x07example\x00\x00\x01\x00\x01", (sys.argv[1], 53))
try: s.recv(512); print("REACHED dns", sys.argv[1])
except OSError: pass
P
done`,
		"ping beyond": `ping -c1 -W2 ` + farSide + ` >/dev/null && echo REACHED ping; ping -c1 -W2 10.0.2.2 >/dev/null && echo REACHED ping`,
		"DHCP on the link": `timeout 8 python3 - <<'P'
import socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind(("cell", 0)); s.settimeout(3)
mac = s.getsockname()[4]
bootp = struct.pack("!BBBBIHH4s4s4s4s16s192s4s", 1, 1, 6, 0, 7, 0, 0x8000, b"", b"", b"", b"", mac + bytes(10), b"", b"\x63\x82\x53\x63") + b"\x35\x01\x01\xff"
udp = struct.pack("!HHHH", 68, 67, 8 + len(bootp), 0) + bootp
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
total = sum(struct.unpack("!10H", head)); total = (total & 0xffff) + (total >> 16); head = head[:10] + struct.pack("!H", ~total & 0xffff) + head[12:]
s.send(b"\xff" * 6 + mac + b"\x08\x00" + head + udp)
try:
    while True:
        frame = s.recv(2048)
        if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[34:36] == b"\x00\x43": print("REACHED dhcp"); break
except OSError: pass
P`,
		"metadata": `try 169.254.169.254 80; try 169.254.169.253 53`,
		// Port 443 is the firewall's whatever the address, so here only the far side can tell.
		"TLS to the gateway and the host": `for a in 10.0.2.2 ` + netlab.UplinkAddr + `; do curl -sk -m 4 --resolve no.test.example:443:$a https://no.test.example/canary; done; true`,
	} {
		lines[name] = connect + line
	}
	for name, out := range h.facts(t, lines) {
		if strings.Contains(out, "REACHED") {
			t.Errorf("%s: %s", name, out)
		}
	}
	select {
	case from := <-reached:
		t.Errorf("a service of the host was reached from %s", from)
	default:
	}
	for _, s := range h.world.Sightings() {
		if s.Kind == "tcp" || s.Kind == "udp" || s.Kind == "ssh" || strings.Contains(s.Name, "canary") || s.Name == "no.test.example" {
			t.Errorf("the far side saw %v", s)
		}
	}
	if r := h.sh(t, "curl -sS https://ok.test.example/after"); r.code != 0 {
		t.Errorf("the way out is broken after the attempts: %+v", r)
	}
}

// apt serves a small package repository at the far side over HTTPS and installs from it.
func apt(t *testing.T, h *host) {
	for _, tool := range []string{"dpkg-deb", "apt-ftparchive"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (apt-get install apt-utils)", tool)
		}
	}
	repo := t.TempDir()
	control := "Package: rootcell-hello\nVersion: 1\nArchitecture: all\nMaintainer: test\nDescription: a test package\n"
	tree := filepath.Join(t.TempDir(), "hello")
	for path, text := range map[string]string{"DEBIAN/control": control, "usr/share/rootcell-hello/proof": "installed\n"} {
		full := filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shell := exec.Command("sh", "-ec", `dpkg-deb --root-owner-group -b "$1" rootcell-hello_1_all.deb >/dev/null; apt-ftparchive packages . > Packages; apt-ftparchive release . > Release`, "sh", tree)
	shell.Dir = repo
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("making the repository: %v: %s", err, out)
	}
	h.world.Host(t, "deb.test.example", http.FileServer(http.Dir(repo)))
	source := `echo 'deb [trusted=yes] %s://deb.test.example/ ./' > /etc/apt/sources.list.d/test.list; apt-get -o Dir::Etc::sourcelist=sources.list.d/test.list -o Dir::Etc::sourceparts=- -o Acquire::Retries=0 -o Acquire::http::Timeout=5 `

	if r := h.sh(t, strings.ReplaceAll(source, "%s", "https")+"update"); !strings.Contains(r.stdout+r.stderr, "deb.test.example") || len(h.world.Sightings("https", "deb.test.example")) > 0 {
		t.Errorf("before it is allowed: %+v", r)
	}
	h.must(t, "allow", "deb.test.example")
	if r := h.sh(t, strings.ReplaceAll(source, "%s", "https")+"update && apt-get install -y rootcell-hello && cat /usr/share/rootcell-hello/proof"); r.code != 0 || !strings.Contains(r.stdout, "installed\n") {
		t.Errorf("installing: %+v", r)
	}
	h.world.Forget()
	h.sh(t, strings.ReplaceAll(source, "%s", "http")+"update")
	if seen := h.world.Sightings("tcp", "80"); len(seen) > 0 {
		t.Errorf("cleartext HTTP got out: %v", seen)
	}
}

// forward serves in the agent and reads on the host.
func forward(t *testing.T, h *host) {
	h.must(t, "--", "sh", "-c", "mkdir -p /tmp/www && echo forwarded > /tmp/www/x && cd /tmp/www && (setsid python3 -m http.server 8123 --bind 127.0.0.1 >/dev/null 2>&1 </dev/null &) ; for i in $(seq 100); do curl -s 127.0.0.1:8123/x && break; sleep 0.1; done")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := h.command(ctx, "forward", "18123:8123")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return h.ns.Dial(ctx, "tcp4", addr) },
	}}
	netlab.Await(t, 15*time.Second, "the forwarded port", func() bool {
		r, err := client.Get("http://127.0.0.1:18123/x")
		if err != nil {
			return false
		}
		defer func() { _ = r.Body.Close() }()
		text, _ := io.ReadAll(r.Body)
		return string(text) == "forwarded\n"
	})
	taken := h.rootcell(t, "forward", "18123:8123")
	oneLine(t, taken, 1, "18123")
}
