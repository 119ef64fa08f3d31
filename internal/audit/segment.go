package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
)

// segments is the number of files a log is spread over: the newest at path, then
// path.1 to path.3. Rotation throws the oldest away.
const segments = 4

// segment is the newest file of a log and its rotation. It is not safe for
// concurrent use.
type segment struct {
	path  string
	limit int64 // of this one file
	f     *os.File
	size  int64 // up to the end of the last whole line
	dirty bool
}

// openSegment opens or makes the file at path. A line that a crash left without
// its end is cut off.
func openSegment(path string, limit int64) (*segment, error) {
	if limit <= 0 {
		return nil, fmt.Errorf("opening audit log %q: its size limit must be positive", path)
	}
	s := &segment{path: path, limit: limit}
	if err := s.open(); err != nil {
		return nil, err
	}
	end, err := lastLineEnd(s.f)
	if err == nil {
		err = s.f.Truncate(end)
	}
	if err != nil {
		s.f.Close()
		return nil, fmt.Errorf("mending audit log %q: %w", path, err)
	}
	s.size = end
	return s, nil
}

func (s *segment) open() error {
	// Not through a symbolic link: the directory may be writable by others than the
	// daemon, the file it appends to must be its own.
	f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return fmt.Errorf("opening audit log %q: %w", s.path, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("opening audit log %q: %w", s.path, err)
	}
	s.f, s.size = f, info.Size()
	return nil
}

// lastLineEnd returns the offset just behind the last newline.
func lastLineEnd(f *os.File) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 32<<10)
	for end > 0 {
		n := min(int64(len(buf)), end)
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return 0, nil
}

// append writes whole lines, rotating where the limit falls, and returns how many
// of them are in the file. After an error the file ends in a whole line again.
func (s *segment) append(lines []byte) (kept int, err error) {
	for len(lines) > 0 {
		room := s.limit - s.size
		if s.size > 0 && int64(bytes.IndexByte(lines, '\n')+1) > room {
			if err := s.rotate(); err != nil {
				return kept, err
			}
			room = s.limit
		}
		chunk := lines
		if int64(len(chunk)) > room {
			// At least one line, even one that is longer than the limit.
			cut := bytes.LastIndexByte(chunk[:max(room, 0)], '\n') + 1
			if cut == 0 {
				cut = bytes.IndexByte(chunk, '\n') + 1
			}
			chunk = chunk[:cut]
		}
		n, err := s.write(chunk)
		kept += n
		if err != nil {
			return kept, err
		}
		lines = lines[len(chunk):]
	}
	return kept, nil
}

// write appends chunk and returns the number of whole lines that arrived.
func (s *segment) write(chunk []byte) (int, error) {
	if s.f == nil {
		if err := s.open(); err != nil {
			return 0, err
		}
	}
	s.dirty = true
	n, err := s.f.Write(chunk)
	if err == nil {
		s.size += int64(n)
		return bytes.Count(chunk, newline), nil
	}
	whole := bytes.LastIndexByte(chunk[:n], '\n') + 1
	s.size += int64(whole)
	if terr := s.f.Truncate(s.size); terr != nil {
		err = errors.Join(err, terr)
	}
	return bytes.Count(chunk[:whole], newline), fmt.Errorf("writing audit log %q: %w", s.path, err)
}

var newline = []byte{'\n'}

// rotate moves every file one number up and starts a new one.
func (s *segment) rotate() error {
	if s.f != nil {
		s.sync()
		s.f.Close()
		s.f = nil
	}
	for i := segments - 1; i > 0; i-- {
		err := os.Rename(segmentPath(s.path, i-1), segmentPath(s.path, i))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rotating audit log %q: %w", s.path, err)
		}
	}
	return s.open()
}

// segmentPath names the i-th newest file.
func segmentPath(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

// sync pushes written lines to the disk; its error would have nothing new to say
// that the next write does not.
func (s *segment) sync() {
	if s.f != nil && s.dirty {
		_ = s.f.Sync()
		s.dirty = false
	}
}

func (s *segment) close() error {
	if s.f == nil {
		return nil
	}
	s.sync()
	err := s.f.Close()
	s.f = nil
	return err
}
