package sshx

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// interruptible makes reads of a file end when stop is called, so that a
// session that is over does not swallow the first key of whatever reads the
// terminal next. Other readers come back as they are.
func interruptible(r io.Reader) (input io.Reader, stop func()) {
	if r == nil {
		return strings.NewReader(""), func() {}
	}
	file, ok := r.(*os.File)
	if !ok {
		return r, func() {}
	}
	wakeReader, wakeWriter, err := os.Pipe()
	if err != nil || file.Fd() >= unix.FD_SETSIZE || wakeReader.Fd() >= unix.FD_SETSIZE {
		return r, func() {}
	}
	f := &interruptibleFile{file: file, wake: wakeReader}
	return f, func() {
		wakeWriter.Close()
		f.reading.Lock()
		defer f.reading.Unlock()
		wakeReader.Close()
	}
}

type interruptibleFile struct {
	file    *os.File
	wake    *os.File   // becomes readable when stopped
	reading sync.Mutex // held while Read uses the descriptors
}

// Read waits with select(2): poll(2) does not work on terminals in macOS.
func (f *interruptibleFile) Read(p []byte) (int, error) {
	f.reading.Lock()
	defer f.reading.Unlock()
	in, wake := int(f.file.Fd()), int(f.wake.Fd())
	if wake < 0 {
		return 0, io.EOF
	}
	for {
		var set unix.FdSet
		set.Set(in)
		set.Set(wake)
		_, err := unix.Select(max(in, wake)+1, &set, nil, nil, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("select", err)
		case set.IsSet(wake):
			return 0, io.EOF
		default:
			return f.file.Read(p)
		}
	}
}
