package qemu

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// consoleKept is how many bytes of a console are shown, and kept when the file
// has grown past consoleMax.
const (
	consoleKept = 256 << 10
	consoleMax  = 4 << 20
)

// Console implements provider.ConsoleReader.
func (p *Provider) Console(ctx context.Context, id provider.CellID, role provider.Role) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if _, err := load(id); err != nil {
		return nil, err
	}
	d := dirOf(id)
	if role == provider.RoleAgent {
		if err := d.drainConsole(ctx); err != nil {
			p.log.Debug("reading the agent's console from QEMU", "error", err)
		}
	}
	data, err := readTail(d.path(file(role, "console")), consoleKept)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the console of the %s: %w", role, err)
	}
	return data, nil
}

// drainConsole moves what QEMU's ring holds of the agent's console to the file
// of what was drained before. It does nothing when the agent does not run.
func (d dir) drainConsole(ctx context.Context) error {
	if pid, err := d.holder(provider.RoleAgent); err != nil || pid == 0 {
		return err
	}
	var encoded string
	arguments := map[string]any{"device": "console", "size": consoleRing, "format": "base64"}
	if err := ask(ctx, d, provider.RoleAgent, 5*time.Second, "ringbuf-read", arguments, &encoded); err != nil {
		return err
	}
	fresh, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(fresh) == 0 {
		return err
	}
	name := file(provider.RoleAgent, "console")
	before, err := readTail(d.path(name), consoleKept)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all := append(before, fresh...)
	return d.writePrivate(name, all[max(0, len(all)-consoleKept):])
}

// trimConsole shortens the firewall's console once it has grown large. QEMU
// appends to the file, so what it writes meanwhile comes after what is kept.
func (d dir) trimConsole() error {
	path := d.path(file(provider.RoleFirewall, "console"))
	info, err := os.Stat(path)
	if err != nil || info.Size() <= consoleMax {
		return nil
	}
	kept, err := readTail(path, consoleKept)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(kept)
	return errors.Join(err, f.Close())
}

// readTail reads at most the last n bytes of a file.
func readTail(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, n))
}

// printableLines splits what a guest or QEMU wrote into its lines that say
// something, without control characters.
func printableLines(data []byte) []string {
	var lines []string
	for line := range bytes.Lines(data) {
		// Invariant: nothing that a guest wrote reaches a terminal with its
		// control characters (TestPrintableLinesHoldNoControl).
		clean := strings.TrimSpace(strings.Map(func(r rune) rune {
			if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
				return -1
			}
			return r
		}, string(line)))
		if runes := []rune(clean); len(runes) > 200 {
			clean = string(runes[:200]) + "..."
		}
		if clean != "" {
			lines = append(lines, clean)
		}
	}
	return lines
}

// lastWords is the end of what a machine and its QEMU said, for an error's one
// line; empty when they said nothing.
func (d dir) lastWords(role provider.Role) string {
	var words []string
	if complaint := d.complaint(role); complaint != "" {
		words = append(words, "QEMU said: "+complaint)
	}
	if data, err := readTail(d.path(file(role, "console")), 4096); err == nil {
		lines := printableLines(data)
		if lines = lines[max(0, len(lines)-2):]; len(lines) > 0 {
			words = append(words, "its console ends: "+strings.Join(lines, " / "))
		}
	}
	return strings.Join(words, "; ")
}
