//go:build linux

package machine

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Linux input event codes, from linux/input-event-codes.h.
const (
	evKey    = 1
	keyPower = 116
	inputLen = 24 // struct input_event on 64-bit machines
)

// PowerButton calls pressed once for each press of the machine's power button,
// until ctx ends. It watches the input devices present when it is called whose
// name says that they are a power button; with none it logs that and waits.
func PowerButton(ctx context.Context, log *slog.Logger, pressed func()) {
	names, err := filepath.Glob("/sys/class/input/event*/device/name")
	if err != nil || len(names) == 0 {
		log.Warn("no input devices: the power button is not watched")
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil || !isPowerButton(string(text)) {
			continue
		}
		event := filepath.Base(filepath.Dir(filepath.Dir(name)))
		device, err := os.Open(filepath.Join("/dev/input", event))
		if err != nil {
			log.Warn("opening power button", "device", event, "err", err)
			continue
		}
		context.AfterFunc(ctx, func() { device.Close() })
		go readButton(device, pressed)
	}
	<-ctx.Done()
}

func isPowerButton(name string) bool {
	name = strings.TrimSpace(name)
	return name == "Power Button" || name == "gpio-keys"
}

// readButton calls pressed for each power key going down in a stream of input
// events, until the stream ends.
func readButton(events io.Reader, pressed func()) {
	var event [inputLen]byte
	for {
		if _, err := io.ReadFull(events, event[:]); err != nil {
			return
		}
		kind := binary.NativeEndian.Uint16(event[16:])
		code := binary.NativeEndian.Uint16(event[18:])
		value := binary.NativeEndian.Uint32(event[20:])
		if kind == evKey && code == keyPower && value == 1 {
			pressed()
		}
	}
}
