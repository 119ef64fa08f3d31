package sshx

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// CopyOptions say what to copy and how much a copy may bring.
type CopyOptions struct {
	Sources     []string // all on one side; `:/path` is on the server
	Destination string   // on the other side
	Recursive   bool     // directories too
	// Limits of what a server may send. Zero means DefaultMaxBytes and
	// DefaultMaxEntries.
	MaxBytes   int64
	MaxEntries int
	// Progress is told the sum of bytes so far and the file being copied,
	// Note what was left out and why. Both may be nil; neither is called
	// concurrently. Names in them are quoted.
	Progress func(bytes int64, file string)
	Note     func(text string)
}

// Limits of one copy from the server.
const (
	DefaultMaxBytes   = int64(64) << 30
	DefaultMaxEntries = 1_000_000
	maxDepth          = 128
)

// Copy copies files between the host and the server with the rules of cp: into
// the destination when that is a directory, else to its name. Files keep their
// permission bits except setuid, setgid and sticky.
func (c *Client) Copy(ctx context.Context, options CopyOptions) error {
	sources, destination, upload, err := sides(options)
	if err != nil {
		return err
	}
	t, closeSFTP, err := c.transfer(ctx, options)
	if err != nil {
		return err
	}
	defer closeSFTP()
	if upload {
		err = t.upload(sources, destination)
	} else {
		err = t.download(sources, destination)
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("copying: %w", context.Cause(ctx))
	}
	return err
}

// sides splits arguments into paths and a direction. A host path that begins
// with a colon is written ./:name.
func sides(options CopyOptions) (sources []string, destination string, upload bool, err error) {
	if len(options.Sources) == 0 {
		return nil, "", false, errors.New("copying: there is no source; write SRC… DST")
	}
	remote := 0
	for _, source := range options.Sources {
		path, isRemote := strings.CutPrefix(source, ":")
		if isRemote {
			remote++
		}
		if path == "" {
			return nil, "", false, errors.New("copying: a source is empty; write :/path for the agent's files")
		}
		sources = append(sources, path)
	}
	destination, toRemote := strings.CutPrefix(options.Destination, ":")
	switch {
	case options.Destination == "":
		return nil, "", false, errors.New("copying: the destination is empty; write a path, or : for the agent's home")
	case toRemote && remote == 0:
		return sources, destination, true, nil
	case !toRemote && remote == len(sources):
		return sources, destination, false, nil
	case toRemote:
		return nil, "", false, errors.New("copying: both sides are in the agent; use `rootcell run cp`")
	case remote == 0:
		return nil, "", false, errors.New("copying: neither side is in the agent; write :/path for the agent's files")
	}
	return nil, "", false, errors.New("copying: sources are on both sides; copy them one side after the other")
}
