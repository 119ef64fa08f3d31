package sshx

import (
	"os"
	"syscall"
	"testing"
)

// TestMain fixes the umask, on which the permissions of copies depend.
func TestMain(m *testing.M) {
	syscall.Umask(0o022)
	os.Exit(m.Run())
}
