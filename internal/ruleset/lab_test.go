//go:build linux

package ruleset

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// TestWhoMayLeaveTheFirewall tries every way out of the firewall as the daemon's
// user, as another user and as root. The far side listens on all of the ports.
func TestWhoMayLeaveTheFirewall(t *testing.T) {
	lab := netlab.New(t)
	const host, private = "11.22.33.9", "10.1.2.3"
	for _, addr := range []string{host, private, "10.9.9.9"} {
		lab.AddInternetAddr(t, addr+"/32")
	}
	for _, addr := range []string{netlab.InternetAddr, host, private, "10.9.9.9"} {
		for _, port := range []string{"22", "53", "80", "443", "8443"} {
			listener, err := lab.Internet.Listen("tcp4", addr+":"+port)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { listener.Close() })
		}
	}
	agentSSH, err := lab.Agent.Listen("tcp4", netlab.AgentAddr+":22")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agentSSH.Close() })
	p := params()
	p.AllowPrivate = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	p.HostAddresses = []netip.Prefix{netip.MustParsePrefix(host + "/32")}
	path := filepath.Join(lab.Dir, "rules.nft")
	if err := os.WriteFile(path, []byte(render(t, p)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := lab.Firewall.Command(t.Context(), "nft", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	const daemon, other, root = 900, 1000, 0
	for _, test := range []struct {
		uid  int
		addr string
		want bool
	}{
		{daemon, netlab.InternetAddr + ":443", true},
		{daemon, netlab.InternetAddr + ":22", true},
		{daemon, netlab.InternetAddr + ":53", true}, // the configured resolver
		{daemon, netlab.InternetAddr + ":80", false},
		{daemon, netlab.InternetAddr + ":8443", false},
		{daemon, private + ":443", true},
		{daemon, private + ":80", false},
		{daemon, "10.9.9.9:443", false}, // private and not listed
		{daemon, host + ":443", false},
		{daemon, host + ":22", false},
		{daemon, netlab.AgentAddr + ":22", false},
		{other, netlab.InternetAddr + ":443", false},
		{other, netlab.InternetAddr + ":53", false},
		{root, netlab.InternetAddr + ":443", false},
		{root, private + ":443", false},
		{root, netlab.AgentAddr + ":22", true}, // the host's SSH passing through
	} {
		t.Run(fmt.Sprintf("user %d to %s", test.uid, test.addr), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			target, port, _ := strings.Cut(test.addr, ":")
			began := time.Now()
			out, err := lab.Firewall.Command(ctx, "setpriv", fmt.Sprintf("--reuid=%d", test.uid), "--clear-groups",
				"bash", "-c", "exec 3<>/dev/tcp/"+target+"/"+port).CombinedOutput()
			if (err == nil) != test.want {
				t.Errorf("connected: %v, want %v\n%s", err == nil, test.want, out)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it took %s: refusals must be quick", took)
			}
		})
	}
}
