//go:build linux

package machine

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

func event(kind, code uint16, value uint32) []byte {
	e := make([]byte, inputLen)
	binary.NativeEndian.PutUint16(e[16:], kind)
	binary.NativeEndian.PutUint16(e[18:], code)
	binary.NativeEndian.PutUint32(e[20:], value)
	return e
}

func TestReadButton(t *testing.T) {
	stream := bytes.Join([][]byte{
		event(evKey, keyPower, 1), event(0, 0, 0), event(evKey, keyPower, 0), // a press and its release
		event(evKey, 30, 1),       // another key
		event(2, keyPower, 1),     // another kind of event
		event(evKey, keyPower, 1), // pressed again
		{1, 2, 3},                 // cut off
	}, nil)
	presses := 0
	readButton(bytes.NewReader(stream), func() { presses++ })
	if presses != 2 {
		t.Errorf("counted %d presses, want 2", presses)
	}
}

func TestIsPowerButton(t *testing.T) {
	for name, want := range map[string]bool{"Power Button\n": true, "gpio-keys\n": true, "AT Translated Set 2 keyboard\n": false, "": false} {
		if got := isPowerButton(name); got != want {
			t.Errorf("isPowerButton(%q) = %v", name, got)
		}
	}
}

func TestLoadModulesWithoutAListIsAnError(t *testing.T) {
	var log bytes.Buffer
	err := LoadModules(filepath.Join(t.TempDir(), "none"), slog.New(slog.NewTextHandler(&log, nil)))
	if err == nil || !strings.Contains(err.Error(), "module list") {
		t.Errorf("LoadModules = %v", err)
	}
}
