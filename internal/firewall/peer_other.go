//go:build !linux

package firewall

import (
	"errors"
	"net"
)

// peerUID refuses everybody: the firewall runs on Linux.
func peerUID(*net.UnixConn) (uint32, error) {
	return 0, errors.New("reading peer credentials: only supported on Linux")
}
