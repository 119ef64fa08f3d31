package config

import (
	_ "embed"
	"regexp"
	"strings"
)

// annotated is the text with every setting at its default. The rootcell.toml
// at the top of the project is a copy of it.
//
//go:embed defaults.toml
var annotated string

const instanceHead = `# rootcell.toml: the configuration of this instance.
#
# A line without the # in front overrides the project's rootcell.toml and the
# built-in default, which is the value shown. ROOTCELL_* environment variables and
# command-line flags override this file.
`

var settingLine = regexp.MustCompile(`(?m)^[a-z_]+ = `)

// Seed is the rootcell.toml that a new instance starts with: every setting is
// there with its description, and none but the schema is set.
func Seed() []byte {
	// The project's introduction ends at the first empty line.
	_, body, _ := strings.Cut(annotated, "\n\n")
	body = settingLine.ReplaceAllStringFunc(body, func(line string) string {
		if strings.HasPrefix(line, "schema ") {
			return line
		}
		return "# " + line
	})
	return []byte(instanceHead + "\n" + body)
}
