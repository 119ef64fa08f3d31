package cell

import (
	"fmt"
	"regexp"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// DefaultInstance is the instance used when neither a flag nor a selection
// names one.
const DefaultInstance = "default"

var namePattern = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)

// CheckName says whether s may name an instance. The name becomes a directory,
// a host name and part of machine names, so nothing else is let through.
func CheckName(s string) error {
	if !namePattern.MatchString(s) {
		return usageError("instance name %q is not valid; use 1 to 32 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen", s)
	}
	return nil
}

// MachineName is the name of one machine of an instance: the bare role for the
// default instance, else role-instance.
func MachineName(role provider.Role, instance string) string {
	if instance == DefaultInstance {
		return string(role)
	}
	return fmt.Sprintf("%s-%s", role, instance)
}
