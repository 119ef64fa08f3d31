//go:build linux

// Package netlab builds a throw-away internet out of network namespaces for tests and benchmarks: a namespace each for
// the agent, the firewall and everything beyond it, joined by veth pairs as the two machines of a cell are. The real
// firewall binary and the real ruleset run in the middle; what arrives beyond is recorded by a World, so that a test can
// assert at the far side. No packet leaves the machine: the outermost namespace has no link to anything.
package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
)

// Addresses of the lab. The far side uses globally routable numbers so that the firewall's special-address rules are at
// work as they are in the field; the namespaces have no route out, so the numbers mean nothing outside.
const (
	FirewallAddr = "192.168.77.10"
	AgentAddr    = "192.168.77.11"
	UplinkAddr   = "11.22.33.2"
	InternetAddr = "11.22.33.1"
	PrivateIface = "cell"
	UplinkIface  = "uplink"
)

// Addresses of a second machine between agent and internet, which AddPeer builds.
const (
	PeerAddr         = "192.168.78.10"
	PeerAgentAddr    = "192.168.78.11"
	PeerUplinkAddr   = "11.22.34.2"
	PeerInternetAddr = "11.22.34.1"
)

// Namespace is one host of the lab.
type Namespace struct {
	Name string
	ns   netns.NsHandle
}

// Lab is the three hosts. Its namespaces are removed when the test ends.
type Lab struct {
	Agent, Firewall, Internet *Namespace
	// Dir is the lab's scratch directory, world-readable so that an unprivileged daemon finds its files.
	Dir string
}

// New builds the lab, or skips the test with the reason where that is not possible.
func New(tb testing.TB) *Lab {
	tb.Helper()
	requireRoot(tb, "ip", "nft", "setpriv")
	dir, err := os.MkdirTemp("", "rootcell-lab-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	prefix := "rc" + strings.TrimPrefix(filepath.Base(dir), "rootcell-lab-")
	lab := &Lab{Dir: dir}
	lab.Agent = newNamespace(tb, prefix+"a")
	lab.Firewall = newNamespace(tb, prefix+"f")
	lab.Internet = newNamespace(tb, prefix+"i")

	join(tb, lab.Agent, "eth0", AgentAddr+"/24", lab.Firewall, PrivateIface, FirewallAddr+"/24")
	join(tb, lab.Firewall, UplinkIface, UplinkAddr+"/24", lab.Internet, "eth0", InternetAddr+"/24")
	run(tb, "ip", "-n", lab.Agent.Name, "route", "add", "default", "via", FirewallAddr)
	run(tb, "ip", "-n", lab.Firewall.Name, "route", "add", "default", "via", InternetAddr)
	run(tb, "ip", "-n", lab.Internet.Name, "route", "add", "192.168.77.0/24", "via", UplinkAddr)
	for _, ns := range []*Namespace{lab.Agent, lab.Firewall} {
		lab.resolvConf(tb, ns)
	}
	return lab
}

// AddPeer builds another machine between agent and internet, a plain router by which the agent reaches PeerInternetAddr's
// network: the place for what the firewall is compared with.
func (l *Lab) AddPeer(tb testing.TB) *Namespace {
	tb.Helper()
	peer := newNamespace(tb, strings.TrimSuffix(l.Agent.Name, "a")+"p")
	join(tb, l.Agent, "eth1", PeerAgentAddr+"/24", peer, PrivateIface, PeerAddr+"/24")
	join(tb, peer, UplinkIface, PeerUplinkAddr+"/24", l.Internet, "eth1", PeerInternetAddr+"/24")
	run(tb, "ip", "-n", l.Agent.Name, "route", "add", "11.22.34.0/24", "via", PeerAddr)
	run(tb, "ip", "-n", l.Internet.Name, "route", "add", "192.168.78.0/24", "via", PeerUplinkAddr)
	run(tb, "ip", "netns", "exec", peer.Name, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
	return peer
}

// Hosts gives the agent's programs names without DNS, as lines of /etc/hosts.
func (l *Lab) Hosts(tb testing.TB, lines string) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join("/etc/netns", l.Agent.Name, "hosts"), []byte(lines), 0o644); err != nil {
		tb.Fatal(err)
	}
}

// NewHost builds a host with one link, at UplinkAddr, to a far side at InternetAddr: for tests whose machines reach the
// outside through the user-mode network of a process that runs on the host. It skips the test with the reason where that
// is not possible.
func NewHost(tb testing.TB) (host, internet *Namespace) {
	tb.Helper()
	requireRoot(tb, "ip")
	prefix := fmt.Sprintf("rch%d", os.Getpid())
	host, internet = newNamespace(tb, prefix+"h"), newNamespace(tb, prefix+"i")
	join(tb, host, UplinkIface, UplinkAddr+"/24", internet, "eth0", InternetAddr+"/24")
	run(tb, "ip", "-n", host.Name, "route", "add", "default", "via", InternetAddr)
	return host, internet
}

// AddInternetAddr gives the far side another address, by which the firewall can reach it.
func (l *Lab) AddInternetAddr(tb testing.TB, addr string) {
	tb.Helper()
	iface := "eth0"
	if strings.HasPrefix(addr, "11.22.34.") {
		iface = "eth1" // the peer's link
	}
	run(tb, "ip", "-n", l.Internet.Name, "addr", "add", addr, "dev", iface)
}

func requireRoot(tb testing.TB, tools ...string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("network namespaces need root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			tb.Skipf("%s is not installed (apt-get install iproute2 nftables util-linux)", tool)
		}
	}
}

func newNamespace(tb testing.TB, name string) *Namespace {
	tb.Helper()
	run(tb, "ip", "netns", "add", name)
	tb.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			tb.Logf("removing namespace %s: %v: %s", name, err, out)
		}
	})
	handle, err := netns.GetFromName(name)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = handle.Close() })
	run(tb, "ip", "-n", name, "link", "set", "lo", "up")
	return &Namespace{Name: name, ns: handle}
}

func join(tb testing.TB, a *Namespace, aIface, aAddr string, b *Namespace, bIface, bAddr string) {
	tb.Helper()
	run(tb, "ip", "link", "add", aIface, "netns", a.Name, "type", "veth", "peer", "name", bIface, "netns", b.Name)
	for _, end := range []struct {
		ns          *Namespace
		iface, addr string
	}{{a, aIface, aAddr}, {b, bIface, bAddr}} {
		run(tb, "ip", "-n", end.ns.Name, "addr", "add", end.addr, "dev", end.iface)
		run(tb, "ip", "-n", end.ns.Name, "link", "set", end.iface, "up")
	}
}

// resolvConf makes the firewall the namespace's resolver for programs started by `ip netns exec`.
func (l *Lab) resolvConf(tb testing.TB, ns *Namespace) {
	tb.Helper()
	dir := filepath.Join("/etc/netns", ns.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	text := "nameserver " + FirewallAddr + "\noptions timeout:2 attempts:1\n"
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
}

// Command prepares a program that will run in the namespace. Its environment is minimal: nothing of the caller's proxies
// or certificate settings reaches it.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(), "LANG=C.UTF-8", "TERM=dumb"}
	return cmd
}

// do runs f on a thread that is inside the namespace. Sockets that f creates stay there for their lifetime.
func (n *Namespace) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		origin, err := netns.Get()
		if err != nil {
			done <- fmt.Errorf("reading the current namespace: %w", err)
			return
		}
		defer func() { _ = origin.Close() }()
		if err := netns.Set(n.ns); err != nil {
			done <- fmt.Errorf("entering namespace %q: %w", n.Name, err)
			return
		}
		err = f()
		if back := netns.Set(origin); back != nil {
			// The thread stays locked and so dies with this goroutine instead of serving others in the wrong place.
			done <- errors.Join(err, back)
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// Listen opens a stream listener inside the namespace. The caller closes it.
func (n *Namespace) Listen(network, addr string) (net.Listener, error) {
	var ln net.Listener
	err := n.do(func() (err error) { ln, err = net.Listen(network, addr); return err })
	return ln, err
}

// ListenPacket opens a datagram socket inside the namespace. The caller closes it.
func (n *Namespace) ListenPacket(network, addr string) (net.PacketConn, error) {
	var pc net.PacketConn
	err := n.do(func() (err error) { pc, err = net.ListenPacket(network, addr); return err })
	return pc, err
}

// Dial connects from inside the namespace to a numeric address.
func (n *Namespace) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var c net.Conn
	err := n.do(func() (err error) { c, err = new(net.Dialer).DialContext(ctx, network, addr); return err })
	return c, err
}

func run(tb testing.TB, name string, args ...string) {
	tb.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		tb.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}
