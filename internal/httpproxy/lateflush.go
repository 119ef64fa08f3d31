package httpproxy

import (
	"net/http"
	"sync"
	"time"
)

// lateFlush is how long the head of an answer may wait for the first bytes of its
// body, and the last byte of a body for the end of the stream: most answers are
// small and come whole, and then go out in one write instead of three.
const lateFlush = 300 * time.Microsecond

// lateFlusher writes an answer's body and sees to it that nothing that was written stays
// unsent for longer than lateFlush.
type lateFlusher struct {
	mu      sync.Mutex
	w       http.ResponseWriter // guarded by mu
	flush   func()              // guarded by mu
	timer   *time.Timer
	waiting bool // something is to be flushed by the timer; guarded by mu
}

// write sends p now, or by the timer when there is reason to believe that the end is near.
func (l *lateFlusher) write(p []byte, last bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.w.Write(p); err != nil {
		return err
	}
	if last {
		l.arm()
		return nil
	}
	l.waiting = false
	l.flush()
	return nil
}

// soon has what was written so far flushed by the timer, or with the next write.
func (l *lateFlusher) soon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.arm()
}

func (l *lateFlusher) arm() {
	l.waiting = true
	if l.timer == nil {
		l.timer = time.AfterFunc(lateFlush, l.fire)
		return
	}
	l.timer.Reset(lateFlush)
}

func (l *lateFlusher) fire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting {
		l.waiting = false
		l.flush()
	}
}

// stop ends the timer. The response writer is not touched any more afterwards.
func (l *lateFlusher) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = false
	if l.timer != nil {
		l.timer.Stop()
	}
}
