//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rootcell-ai/rootcell/internal/guest/agentroot"
	"github.com/rootcell-ai/rootcell/internal/guestcfg"
	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// lab is a cell whose far side has servers that the project did not write, each at an address of its own, and whose agent
// trusts the instance's CA as a real agent does.
type lab struct {
	*cell
	root    string // the files that the agent's boot writes
	origins int
}

const openLists = "*.test.example\n"

func newLab(t *testing.T, o netlab.Options) *lab {
	t.Helper()
	if o.DNS == "" && o.HTTPS == "" && o.SSH == "" {
		o.DNS, o.HTTPS, o.SSH = "test.example\n", openLists, openLists
	}
	l := &lab{cell: newCell(t, o)}
	l.writeAgentRoot(t)
	return l
}

// writeAgentRoot lets the code of the agent's boot write its files beside the lab, around a copy of this machine's bundle.
func (l *lab) writeAgentRoot(t *testing.T) {
	t.Helper()
	l.root = filepath.Join(l.Dir, "agent")
	for _, dir := range []string{"etc/ssl/certs", "usr/local/share/ca-certificates"} {
		if err := os.MkdirAll(filepath.Join(l.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const bundle = "/etc/ssl/certs/ca-certificates.crt"
	text, err := os.ReadFile(bundle)
	if err != nil {
		t.Skipf("no certificate bundle on this machine: %v", err)
	}
	if err := os.WriteFile(l.root+bundle, text, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n", "etc/shadow": "root:*:19000::::::\n", "etc/gshadow": "root:*::\n",
	} {
		if err := os.WriteFile(filepath.Join(l.root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	hostKey, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	cfg := guestcfg.Config{Schema: guestcfg.Schema, Role: guestcfg.RoleAgent, Instance: "lab", Hostname: "agent"}
	cfg.Network.Cell.Address = netlab.AgentAddr + "/24"
	cfg.Network.PeerAddress = netlab.FirewallAddr
	cfg.SSH.HostKey = guestcfg.Secret(pem.EncodeToMemory(hostKey))
	cfg.Agent = &guestcfg.Agent{User: "agent", CACert: string(l.daemon.CA), ConnectAddress: netlab.FirewallAddr + ":8080"}
	if err := agentroot.Apply(l.root, cfg); err != nil {
		t.Fatal(err)
	}
}

// agentEnv is what /etc/environment gives every session in the agent.
func (l *lab) agentEnv(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(l.root, "etc/environment"))
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.Dir, "TERM=dumb", "GIT_TERMINAL_PROMPT=0"}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(line, "#") {
			env = append(env, name+"="+strings.Trim(value, `"`))
		}
	}
	return env
}

// asAgent prepares a program in the agent's namespace with the agent's certificates in place and the environment of its
// sessions: nothing is told to trust the CA but by what the boot wrote.
func (l *lab) asAgent(ctx context.Context, t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	path := l.tool(t, name)
	// `ip netns exec` has made a mount namespace that passes nothing on.
	const script = `root=$1; shift
mkdir -p /usr/local/share/ca-certificates
for dir in etc/ssl/certs usr/local/share/ca-certificates; do mount --bind "$root/$dir" "/$dir" || exit 99; done
exec "$@"`
	cmd := l.Agent.Command(ctx, "sh", append([]string{"-c", script, "sh", l.root, path}, args...)...)
	cmd.Env = env
	return cmd
}

// do runs a program as a session of the agent and fails the test when it fails.
func (l *lab) do(t *testing.T, name string, args ...string) string {
	t.Helper()
	r := l.try(t, name, args...)
	if r.code != 0 {
		t.Fatalf("%s %s: exit %d\n%s%s", name, strings.Join(args, " "), r.code, shortened(r.stdout), r.stderr)
	}
	return r.stdout
}

func (l *lab) try(t *testing.T, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := l.asAgent(ctx, t, l.agentEnv(t), name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running %s: %v", name, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func shortened(text string) string {
	if len(text) > 2000 {
		return text[:1000] + " … " + text[len(text)-1000:]
	}
	return text
}

// tool finds a program or skips the test. Python is the system's: its modules come as packages.
func (l *lab) tool(t *testing.T, name string) string {
	t.Helper()
	if name == "python3" {
		if _, err := os.Stat("/usr/bin/python3"); err == nil {
			return "/usr/bin/python3"
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// script names a file of testdata by its full path.
func script(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// needsModules skips the test where Python lacks a module.
func (l *lab) needsModules(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := exec.Command(l.tool(t, "python3"), "-c", "import "+name).Run(); err != nil {
			t.Skipf("Python's %s is not installed (apt-get install python3-grpcio python3-websockets)", name)
		}
	}
}

// place gives a name of the far side an address of its own, whose port leads to another local one, so that a server that
// the project did not write has the address to itself. It returns that port and a PEM file with the name's key and
// certificate.
func (l *lab) place(t *testing.T, name string, port int) (local, pemFile string) {
	t.Helper()
	l.origins++
	addr := fmt.Sprintf("11.22.33.%d", 20+l.origins)
	local = fmt.Sprint(10000 + l.origins)
	l.AddInternetAddr(t, addr+"/24")
	l.world.Host(t, name, nil, addr)
	rules := fmt.Sprintf("add table ip origins\nadd chain ip origins pre { type nat hook prerouting priority -100; }\n"+
		"add rule ip origins pre ip daddr %s tcp dport %d redirect to :%s\n", addr, port, local)
	cmd := l.Internet.Command(t.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("leading %s to a server: %v: %s", addr, err, out)
	}
	leaf, err := l.world.Leaf(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	pemFile = filepath.Join(l.Dir, name+".pem")
	if err := os.WriteFile(pemFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return local, pemFile
}

// origin starts a server on the far side and waits until it listens. command gets the port and the PEM file.
func (l *lab) origin(t *testing.T, name string, port int, command func(local, pemFile string) []string) {
	t.Helper()
	local, pemFile := l.place(t, name, port)
	words := command(local, pemFile)
	cmd := l.Internet.Command(context.Background(), l.tool(t, words[0]), words[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s said: %s", name, shortened(said.String()))
		}
	})
	netlab.Await(t, 15*time.Second, name+" to listen", func() bool {
		select {
		case <-ended:
			t.Fatalf("%v ended: %s", words, said.String())
		default:
		}
		conn, err := l.Internet.Dial(t.Context(), "tcp4", net.JoinHostPort("127.0.0.1", local))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// node starts the Node.js origin under the name.
func (l *lab) node(t *testing.T, name string) {
	t.Helper()
	l.origin(t, name, 443, func(local, pemFile string) []string { return []string{"node", script(t, "origin.mjs"), local, pemFile} })
}

// nginx starts nginx under the name, serving the directory; listen holds further words of the listen directive.
func (l *lab) nginx(t *testing.T, name, listen, dir, server string) {
	t.Helper()
	l.origin(t, name, 443, func(local, pemFile string) []string {
		conf := filepath.Join(l.Dir, name+".conf")
		text := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/%[2]s.pid; error_log stderr error; user root;
events { worker_connections 256; }
http {
  access_log off; client_body_temp_path %[1]s/%[2]s.body; proxy_temp_path %[1]s/%[2]s.t1; fastcgi_temp_path %[1]s/%[2]s.t2;
  uwsgi_temp_path %[1]s/%[2]s.t3; scgi_temp_path %[1]s/%[2]s.t4;
  server { listen %[3]s ssl %[4]s; ssl_certificate %[5]s; ssl_certificate_key %[5]s; root %[6]s; %[7]s }
}
`, l.Dir, name, local, listen, pemFile, dir, server)
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return []string{"nginx", "-c", conf, "-e", "stderr"}
	})
}
