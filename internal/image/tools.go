package image

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Tool is a program that the builder runs.
type Tool struct {
	Program string
	Package string // Debian package that has it
}

// Tools are what a build needs on this host, for this user.
func Tools() []Tool {
	tools := []Tool{{"mmdebstrap", "mmdebstrap"}, {"mke2fs", "e2fsprogs"}, {"tar", "tar"}}
	if os.Geteuid() != 0 {
		tools = append(tools, Tool{"unshare", "util-linux"}, Tool{"newuidmap", "uidmap"})
	}
	return tools
}

// Missing returns an error that names every tool this host lacks and the
// command that installs them, or nil.
func Missing() error {
	var programs, packages []string
	for _, tool := range Tools() {
		if _, err := exec.LookPath(tool.Program); errors.Is(err, exec.ErrNotFound) {
			programs, packages = append(programs, tool.Program), append(packages, tool.Package)
		}
	}
	if len(programs) == 0 {
		return nil
	}
	return fmt.Errorf("building images needs %s: run `sudo apt-get install %s`", strings.Join(programs, ", "), strings.Join(packages, " "))
}
