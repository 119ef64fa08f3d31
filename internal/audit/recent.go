package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// maxRecent bounds what one question can make the daemon hold in memory.
const maxRecent = 100_000

// Recent returns the last n events that the filter selects, oldest first, from
// the file and its predecessors. n below 1 or above 100,000 means 100,000. Lines
// that are not events are passed over.
func (l *Log) Recent(ctx context.Context, filter Filter, n int) ([]Event, error) {
	files, _, err := l.snapshot(0)
	if err != nil {
		return nil, err
	}
	return readBack(ctx, files, filter, n, 0)
}

// Follow is Recent and Subscribe in one, without a gap or a repetition between
// them: past holds what was recorded before the call, live what comes after.
func (l *Log) Follow(ctx context.Context, filter Filter, n int) (past []Event, live <-chan Event, err error) {
	l.mu.Lock()
	live = l.subscribe(ctx, filter)
	mark := l.accepted
	l.mu.Unlock()
	files, newer, err := l.snapshot(mark)
	if err != nil {
		return nil, nil, err
	}
	past, err = readBack(ctx, files, filter, n, newer)
	return past, live, err
}

// window is a file up to the size it had when the question was asked.
type window struct {
	f    *os.File
	size int64
}

// snapshot flushes and opens the files as they are, newest first. newer is the
// number of events in them that were accepted after the mark. The handles stay
// good when the files are rotated away.
func (l *Log) snapshot(mark uint64) (files []window, newer uint64, err error) {
	l.file.Lock()
	defer l.file.Unlock()
	// What the disk refuses is counted and reported elsewhere; what is there can
	// still be read.
	_ = l.writePending()
	l.mu.Lock()
	newer = l.accepted - l.lines - mark
	if l.accepted-l.lines < mark {
		newer = 0
	}
	l.mu.Unlock()
	for i := range segments {
		f, err := os.Open(segmentPath(l.segment.path, i))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			closeAll(files)
			return nil, 0, fmt.Errorf("reading audit log: %w", err)
		}
		size, err := f.Seek(0, io.SeekEnd)
		files = append(files, window{f, size})
		if err != nil {
			closeAll(files)
			return nil, 0, fmt.Errorf("reading audit log: %w", err)
		}
	}
	return files, newer, nil
}

func closeAll(files []window) {
	for _, w := range files {
		w.f.Close()
	}
}

// readBack reads lines from the end of the newest file backwards, passing over
// the first skip of them, until it has n events or finds one that is too old. It
// closes the files.
func readBack(ctx context.Context, files []window, filter Filter, n int, skip uint64) ([]Event, error) {
	defer closeAll(files)
	if n < 1 || n > maxRecent {
		n = maxRecent
	}
	var out []Event
	for _, w := range files {
		full := false
		err := linesBack(ctx, w, func(line []byte) bool {
			if skip > 0 {
				skip--
				return true
			}
			var e Event
			if json.Unmarshal(line, &e) != nil {
				return true
			}
			if e.Time.Before(filter.Since) {
				full = true
				return false
			}
			if filter.Match(&e) {
				out = append(out, e)
			}
			full = len(out) == n
			return !full
		})
		if err != nil {
			return nil, fmt.Errorf("reading audit log: %w", err)
		}
		if full {
			break
		}
	}
	slices.Reverse(out)
	return out, nil
}

// linesBack calls yield with every whole line of the window, last first, until it
// returns false.
func linesBack(ctx context.Context, w window, yield func([]byte) bool) error {
	const block = 64 << 10
	var rest []byte // the beginning of the file's unread part ends in the middle of this line
	for end := w.size; end > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(block, end)
		buf := make([]byte, int(n)+len(rest))
		if _, err := w.f.ReadAt(buf[:n], end-n); err != nil {
			return err
		}
		copy(buf[n:], rest)
		end -= n
		for {
			i := bytes.LastIndexByte(bytes.TrimSuffix(buf, newline), '\n')
			if i < 0 {
				break
			}
			if !yield(bytes.TrimSuffix(buf[i+1:], newline)) {
				return nil
			}
			buf = buf[:i+1]
		}
		rest = buf
	}
	if len(rest) > 0 {
		yield(bytes.TrimSuffix(rest, newline))
	}
	return nil
}
