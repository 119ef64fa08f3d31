//go:build linux

package verbs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/rootcell-ai/rootcell/internal/control"
)

// maxPush bounds what `policy push` reads, in bytes.
const maxPush = 16 << 20

// Push is what `policy push` reads: the rule files to replace, by name. Files
// that are not named stay as they are.
type Push struct {
	Files map[string]string `json:"files"`
}

// push replaces rule files and makes the daemon read them.
//
// Invariant: a push with one problem changes nothing, neither on disk nor in
// force (TestPushRefusesWhole).
func (c Control) push(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) int {
	push, err := readPush(stdin)
	if err != nil {
		return refuse(stderr, err.Error())
	}
	client := control.Dial(c.Socket)
	var problems []control.Problem
	for name, text := range push.Files {
		found, err := c.Check(name, text)
		if err != nil {
			return refuse(stderr, err.Error())
		}
		problems = append(problems, found...)
	}
	if len(problems) > 0 {
		result := control.ReloadResult{SchemaVersion: control.Version, Changed: map[string]control.Change{}, Problems: problems}
		// The generation in force is for information only.
		if status, err := client.Status(ctx); err == nil {
			result.Generation = status.Generation
		}
		print(stdout, stderr, result)
		return refuse(stderr, fmt.Sprintf("%s:%d:%d: %s", problems[0].File, problems[0].Line, problems[0].Column, problems[0].What))
	}
	for name, text := range push.Files {
		if err := replace(filepath.Join(c.PolicyDir, name), text); err != nil {
			return failed(stderr, err)
		}
	}
	result, err := client.Reload(ctx)
	if err != nil {
		return failed(stderr, fmt.Errorf("reloading the policy: %w", err))
	}
	return print(stdout, stderr, result)
}

func readPush(stdin io.Reader) (Push, error) {
	var push Push
	limited := &io.LimitedReader{R: stdin, N: maxPush + 1}
	dec := json.NewDecoder(limited)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&push); err != nil {
		if limited.N <= 0 {
			err = fmt.Errorf("more than %d bytes", maxPush)
		}
		return Push{}, fmt.Errorf("reading the pushed policy: %w", err)
	}
	if len(push.Files) == 0 {
		return Push{}, errors.New("reading the pushed policy: it has no files")
	}
	return push, nil
}

// replace writes a file under another name and renames it, so that a reader
// sees the old text or the new one.
func replace(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".push-*")
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	return nil
}
