package provision

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// gitIdentity sets the host's identity system-wide, so that what the agent
// sets in its own ~/.gitconfig wins and is never overwritten.
func gitIdentity(name, email string) Step {
	var b strings.Builder
	for _, v := range []struct{ key, value string }{{"user.name", name}, {"user.email", email}} {
		if v.value != "" {
			fmt.Fprintf(&b, "[ \"$(git config --system %s 2>/dev/null)\" = %s ] || sudo git config --system %s %s\n",
				v.key, quote(v.value), v.key, quote(v.value))
		}
	}
	return Step{Name: "git-identity", Script: b.String()}
}

// sshKey makes the agent's own key. RSA with 4096 bits is what every Git host
// takes; making one takes up to a minute on an emulated machine, so it is done
// in the background with the lowest priority, and the public half, which shows
// that it is complete, appears last. A second start finds the unit running and
// fails to start another, which is as good.
func sshKey(comment string) Step {
	return Step{Name: "ssh-key", Script: fmt.Sprintf(`
mkdir -p ~/.ssh
chmod 700 ~/.ssh
[ ! -e ~/.ssh/id_rsa.pub ] || exit 0
systemctl is-active --quiet rootcell-ssh-key && exit 0
sudo systemd-run --quiet --collect --unit=rootcell-ssh-key --uid="$(id -u)" --gid="$(id -g)" --nice=19 \
	sh -euc '
cd "$1"
rm -f .rootcell-key .rootcell-key.pub
[ -e id_rsa ] || { ssh-keygen -q -t rsa -b 4096 -N "" -C "$2" -f .rootcell-key && mv .rootcell-key id_rsa; }
ssh-keygen -y -f id_rsa >.rootcell-key.pub
sed "s/\$/ $2/" .rootcell-key.pub >id_rsa.pub.new
mv id_rsa.pub.new id_rsa.pub
rm -f .rootcell-key.pub
' sh "$HOME/.ssh" %s </dev/null >/dev/null 2>&1 ||
	systemctl is-active --quiet rootcell-ssh-key || [ -e ~/.ssh/id_rsa.pub ]
`, quote(comment))}
}

// WaitForKey is a script for `sh -s` that prints the agent's public key as soon
// as it is complete, and fails when nobody is making one.
const WaitForKey = `
i=0
while [ ! -e ~/.ssh/id_rsa.pub ]; do
	i=$((i + 1))
	[ $i -lt 1200 ] || exit 1
	systemctl is-active --quiet rootcell-ssh-key || [ -e ~/.ssh/id_rsa.pub ] || exit 1
	sleep 0.5
done
cat ~/.ssh/id_rsa.pub
`

// guidance links the guest's AGENTS.md to where each harness looks for it. A
// file that somebody wrote there stays.
func guidance(harness []string) Step {
	var b strings.Builder
	for _, h := range []struct{ name, path string }{
		{"pi", ".pi/agent/AGENTS.md"}, {"claude", ".claude/CLAUDE.md"}, {"codex", ".codex/AGENTS.md"},
	} {
		if slices.Contains(harness, h.name) {
			fmt.Fprintf(&b, "mkdir -p \"$(dirname ~/%s)\"\n[ -e ~/%s ] || ln -sfn /etc/rootcell/AGENTS.md ~/%s\n", h.path, h.path, h.path)
		}
	}
	return Step{Name: "guidance", Script: b.String()}
}

// harnessFiles lays the host's files over ~/.pi/agent. Files that the agent
// made there stay.
func harnessFiles(archive []byte) Step {
	return Step{Name: "harness-files", Script: fmt.Sprintf(`
mkdir -p ~/.pi/agent
base64 -d <<'ROOTCELL_ARCHIVE' | tar -x -C ~/.pi/agent --no-same-owner --no-same-permissions
%s
ROOTCELL_ARCHIVE
`, wrap(base64.StdEncoding.EncodeToString(archive), 76))}
}

func wrap(s string, width int) string {
	var lines []string
	for part := range slices.Chunk([]byte(s), width) {
		lines = append(lines, string(part))
	}
	return strings.Join(lines, "\n")
}

// npmPackages are the harnesses as the Node package manager knows them.
func npmPackage(harness string) string {
	switch harness {
	case "pi":
		return "@mariozechner/pi-coding-agent"
	case "claude":
		return "@anthropic-ai/claude-code"
	case "codex":
		return "@openai/codex"
	}
	return ""
}

// SoftwareLog is where the installation of packages and harnesses reports.
const SoftwareLog = "/var/log/rootcell-software.log"

// software installs what is missing through the firewall, in the background:
// it depends on the network, and a cell without those packages is a cell all
// the same.
func software(harness, packages []string) Step {
	var want strings.Builder
	for _, p := range packages {
		fmt.Fprintf(&want, "dpkg-query -W -f='${db:Status-Status}' %s 2>/dev/null | grep -qx installed || debs=\"$debs %s\"\n", quote(p), p)
	}
	for _, h := range harness {
		if pkg := npmPackage(h); pkg != "" {
			fmt.Fprintf(&want, "command -v %s >/dev/null || npms=\"$npms %s\"\n", h, pkg)
		}
	}
	if want.Len() == 0 {
		return Step{Name: "software", Script: ":\n"}
	}
	return Step{Name: "software", Script: `debs= npms=
` + want.String() + `[ -n "$debs$npms" ] || exit 0
systemctl is-active --quiet rootcell-software && exit 0
sudo systemd-run --quiet --collect --unit=rootcell-software --nice=10 --setenv=DEBIAN_FRONTEND=noninteractive \
	sh -c '
exec >>"$1" 2>&1
date
status=0
if [ -n "$2" ]; then apt-get update && apt-get install -y $2 || status=1; fi
if [ -n "$3" ]; then npm install -g $3 || status=1; fi
exit $status
' sh ` + SoftwareLog + ` "$debs" "$npms" </dev/null >/dev/null 2>&1 ||
	systemctl is-active --quiet rootcell-software || true
`}
}
