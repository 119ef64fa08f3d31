package sshx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/pkg/sftp"
)

// transfer is one copy in progress.
type transfer struct {
	ctx       context.Context // of this one call of Copy
	sftp      *sftp.Client
	answers   *guard
	recursive bool
	maxBytes  int64
	maxItems  int
	bytes     int64
	items     int
	progress  func(int64, string)
	note      func(string)
}

// transfer starts the server's SFTP subsystem.
func (c *Client) transfer(ctx context.Context, options CopyOptions) (*transfer, func(), error) {
	session, err := c.ssh.NewSession()
	if err != nil {
		return nil, nil, fmt.Errorf("opening SSH session: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { session.Close() })
	fail := func(err error) (*transfer, func(), error) {
		stop()
		session.Close()
		return nil, nil, fmt.Errorf("starting SFTP: %w", err)
	}
	stdin, err := session.StdinPipe()
	if err != nil {
		return fail(err)
	}
	stdout, err := session.StdoutPipe()
	if err != nil {
		return fail(err)
	}
	if err := session.RequestSubsystem("sftp"); err != nil {
		return fail(err)
	}
	answers := &guard{reader: stdout}
	client, err := sftp.NewClientPipe(answers, stdin, sftp.UseConcurrentWrites(true))
	if err != nil {
		return fail(err)
	}
	t := &transfer{
		ctx:       ctx,
		sftp:      client,
		answers:   answers,
		recursive: options.Recursive,
		maxBytes:  options.MaxBytes,
		maxItems:  options.MaxEntries,
		progress:  options.Progress,
		note:      options.Note,
	}
	if t.maxBytes <= 0 {
		t.maxBytes = DefaultMaxBytes
	}
	if t.maxItems <= 0 {
		t.maxItems = DefaultMaxEntries
	}
	return t, func() {
		stop()
		session.Close()
		client.Close()
	}, nil
}

// entry counts one file, directory or link.
func (t *transfer) entry() error {
	if err := t.ctx.Err(); err != nil {
		return context.Cause(t.ctx)
	}
	if t.items++; t.items > t.maxItems {
		return fmt.Errorf("copying: there are more than %d files", t.maxItems)
	}
	return nil
}

func (t *transfer) skip(format string, args ...any) {
	if t.note != nil {
		t.note(fmt.Sprintf(format, args...))
	}
}

// counted counts the bytes of one file that go into writer.
type counted struct {
	t      *transfer
	name   string
	writer io.Writer
}

func (w *counted) Write(p []byte) (int, error) {
	if w.t.bytes+int64(len(p)) > w.t.maxBytes {
		return 0, fmt.Errorf("copying: there are more than %d bytes", w.t.maxBytes)
	}
	n, err := w.writer.Write(p)
	w.t.count(n, w.name)
	return n, err
}

func (t *transfer) count(n int, name string) {
	t.bytes += int64(n)
	if t.progress != nil {
		t.progress(t.bytes, name)
	}
}

// guard bounds what the server may answer while the library collects an
// answer of unknown length in memory: the listing of a directory.
type guard struct {
	reader io.Reader
	on     atomic.Bool
	left   atomic.Int64
}

const maxListingBytes = 64 << 20

var errListing = errors.New("the server's answer is too long")

func (g *guard) Read(p []byte) (int, error) {
	n, err := g.reader.Read(p)
	if g.on.Load() && g.left.Add(-int64(n)) < 0 {
		return 0, errListing
	}
	return n, err
}

// list reads a directory of the server.
func (t *transfer) list(path string) ([]remoteEntry, error) {
	t.answers.left.Store(maxListingBytes)
	t.answers.on.Store(true)
	defer t.answers.on.Store(false)
	infos, err := t.sftp.ReadDirContext(t.ctx, path)
	if err != nil {
		return nil, fmt.Errorf("reading directory %q of the agent: %w", path, err)
	}
	entries := make([]remoteEntry, len(infos))
	for i, info := range infos {
		entries[i] = remoteEntry{name: info.Name(), mode: info.Mode()}
	}
	return entries, nil
}
