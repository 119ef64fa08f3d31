package agentroot

import (
	_ "embed"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

//go:embed AGENTS.md
var guidanceText string

//go:embed known_hosts
var knownHosts string

// guidance tells a coding agent where it is. The copy in the home directory is
// left alone once somebody has written their own.
func guidance(root *os.Root, cfg guestcfg.Config, user account) error {
	command := "rootcell allow"
	if cfg.Instance != "default" {
		command = "rootcell -i " + cfg.Instance + " allow"
	}
	text := strings.NewReplacer("@INSTANCE@", cfg.Instance, "@FIREWALL@", cfg.Network.PeerAddress, "@ALLOW@", command).Replace(guidanceText)
	if err := write(root, file{name: "etc/rootcell/AGENTS.md", text: text}); err != nil {
		return err
	}
	if user.home == "" {
		return nil
	}
	name := path.Join(user.home, "AGENTS.md")
	old, err := root.ReadFile(name)
	if err == nil && !strings.Contains(string(old), "<!-- rootcell -->") {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return write(root, file{name: name, text: text, uid: user.uid, gid: user.gid})
}
