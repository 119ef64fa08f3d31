package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// monitor is a connection to the control socket (QMP) of one QEMU process. QEMU
// serves one at a time, so it is held for moments only.
type monitor struct {
	conn net.Conn
	dec  *json.Decoder
}

// reply is one message from QEMU: a greeting, an event, a result or an error.
type reply struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string          `json:"event"`
	QMP   json.RawMessage `json:"QMP"`
}

// dialMonitor connects and leaves negotiation mode. ctx bounds the whole life of
// the connection.
func dialMonitor(ctx context.Context, d dir, role provider.Role) (*monitor, error) {
	conn, err := dialUnix(ctx, d.path(file(role, "qmp")))
	if err != nil {
		return nil, fmt.Errorf("asking the %s's QEMU: %w", role, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			conn.Close()
			return nil, fmt.Errorf("asking the %s's QEMU: %w", role, err)
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	m := &monitor{conn: conn, dec: json.NewDecoder(conn)}
	var greeting reply
	err = m.dec.Decode(&greeting)
	if err == nil && greeting.QMP == nil {
		err = errors.New("no greeting")
	}
	if err == nil {
		err = m.run("qmp_capabilities", nil, nil)
	}
	if err != nil {
		stop()
		conn.Close()
		return nil, fmt.Errorf("asking the %s's QEMU: %w", role, err)
	}
	return m, nil
}

func (m *monitor) close() { m.conn.Close() }

// run executes a command and decodes its result into out, unless nil.
func (m *monitor) run(command string, arguments map[string]any, out any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return fmt.Errorf("running %q: %w", command, err)
	}
	for {
		var r reply
		if err := m.dec.Decode(&r); err != nil {
			return fmt.Errorf("running %q: %w", command, err)
		}
		switch {
		case r.Event != "":
			continue
		case r.Error != nil:
			return fmt.Errorf("running %q: %s", command, r.Error.Desc)
		case out == nil:
			return nil
		}
		if err := json.Unmarshal(r.Return, out); err != nil {
			return fmt.Errorf("running %q: %w", command, err)
		}
		return nil
	}
}

// ask connects to a machine's control socket, runs one command and disconnects.
func ask(ctx context.Context, d dir, role provider.Role, limit time.Duration, command string, arguments map[string]any, out any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	m, err := dialMonitor(ctx, d, role)
	if err != nil {
		return err
	}
	defer m.close()
	return m.run(command, arguments, out)
}

// maxSocketPath is the longest socket path that every system here takes: Darwin
// has room for 104 bytes, the last of them zero.
const maxSocketPath = 103

// dialUnix connects to a Unix socket, by way of a short symbolic link when its
// path is too long for the system.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	if len(path) > maxSocketPath {
		short, err := os.MkdirTemp("", "rc") // 0700
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(short)
		link := filepath.Join(short, "d")
		if err := os.Symlink(filepath.Dir(path), link); err != nil {
			return nil, err
		}
		path = filepath.Join(link, filepath.Base(path))
	}
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		// QEMU's queue holds one connection besides the one it serves; Linux
		// says EAGAIN when it is full.
		if !errors.Is(err, unix.EAGAIN) {
			return conn, err
		}
		if pause(ctx, 5*time.Millisecond) != nil {
			return nil, err
		}
	}
}
