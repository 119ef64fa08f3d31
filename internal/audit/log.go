package audit

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxPending bounds the lines that wait for the disk. A disk that stalls longer
	// than it takes to fill costs events (counted), never memory or time.
	maxPending = 4 << 20
	// hastyPending is how much may wait for the next turn of the writer.
	hastyPending = maxPending / 8
	// writeInterval spaces writes under load. The first event after a quiet time is
	// written at once.
	writeInterval = 10 * time.Millisecond
	// syncInterval bounds what a dead machine can take with it.
	syncInterval = 2 * time.Second
	// retryInterval spaces attempts while the disk refuses.
	retryInterval = time.Second
	// keepBuffer is the largest buffer kept for reuse after a burst.
	keepBuffer = 1 << 20
)

// Stats says how the log fares. Dropped greater than zero or an Error means that
// decisions are missing from the log: an alarm for whoever reads the status.
type Stats struct {
	Written uint64    // events in the file
	Dropped uint64    // events lost to a full, failing or slow disk
	Missed  uint64    // events that subscribers were too slow for; the file has them
	Error   string    // what the disk said last; empty while writing works
	ErrorAt time.Time // when it began to say so
}

// Log is a Recorder that writes to a file. Make one with Open.
type Log struct {
	log  *slog.Logger
	wake chan struct{} // capacity 1: there is something to write
	full chan struct{} // capacity 1: there is so much to write that it cannot wait
	quit chan struct{}
	done chan struct{}

	mu       sync.Mutex // guards the following; held for nanoseconds
	pending  []byte
	lines    uint64 // in pending
	accepted uint64 // all events that entered pending
	closed   bool
	subs     map[*subscription]struct{}

	file    sync.Mutex // guards the following; held during I/O
	segment *segment
	spare   []byte

	written, dropped, missed atomic.Uint64
	failure                  atomic.Pointer[failure]
}

type failure struct {
	text string
	at   time.Time
}

// Open starts a log in the file at path, which keeps what it held; its directory
// must exist. All files of the log together (path, path.1, …) stay below maxBytes.
// logger gets the trouble with the disk. Close it to flush.
func Open(path string, maxBytes int64, logger *slog.Logger) (*Log, error) {
	seg, err := openSegment(path, maxBytes/segments)
	if err != nil {
		return nil, err
	}
	l := &Log{
		log:     logger,
		wake:    make(chan struct{}, 1),
		full:    make(chan struct{}, 1),
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
		subs:    map[*subscription]struct{}{},
		segment: seg,
	}
	go l.run()
	return l, nil
}

// Record queues the event for the file and hands it to subscribers. An event
// without a time gets the current one. Events after Close, and events that find
// the queue full, are counted as dropped.
func (l *Log) Record(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.mu.Lock()
	if l.closed || len(l.pending) >= maxPending {
		l.mu.Unlock()
		l.dropped.Add(1)
		return
	}
	l.pending = append(e.AppendJSON(l.pending), '\n')
	l.lines++
	l.accepted++
	first, much := l.lines == 1, len(l.pending) >= hastyPending
	for s := range l.subs {
		l.offer(s, &e)
	}
	l.mu.Unlock()
	if first {
		signal(l.wake)
	}
	if much {
		signal(l.full)
	}
}

// signal leaves a message for one receiver, once.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Stats returns the current counts.
func (l *Log) Stats() Stats {
	s := Stats{Written: l.written.Load(), Dropped: l.dropped.Load(), Missed: l.missed.Load()}
	if f := l.failure.Load(); f != nil {
		s.Error, s.ErrorAt = f.text, f.at
	}
	return s
}

// Flush writes what is queued. It returns what the disk says.
func (l *Log) Flush() error {
	l.file.Lock()
	defer l.file.Unlock()
	return l.writePending()
}

// Close ends subscriptions, writes what is queued and closes the file. Later
// events are counted as dropped. A second Close does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	for s := range l.subs {
		l.remove(s)
	}
	l.mu.Unlock()
	close(l.quit)
	<-l.done
	l.file.Lock()
	defer l.file.Unlock()
	err := l.writePending()
	if cerr := l.segment.close(); err == nil {
		err = cerr
	}
	return err
}

// run is the only goroutine that writes unasked.
func (l *Log) run() {
	defer close(l.done)
	syncs := time.NewTicker(syncInterval)
	defer syncs.Stop()
	for {
		pause, hurry := writeInterval, l.full
		select {
		case <-l.quit:
			return
		case <-syncs.C:
			l.file.Lock()
			l.segment.sync()
			l.file.Unlock()
			continue
		case <-l.wake:
			if l.Flush() != nil {
				pause, hurry = retryInterval, nil
			}
		}
		select {
		case <-l.quit:
			return
		case <-hurry:
			signal(l.wake)
		case <-time.After(pause):
		}
	}
}

// writePending moves the queue to the file. l.file is held.
func (l *Log) writePending() error {
	l.mu.Lock()
	buf, lines := l.pending, l.lines
	l.pending, l.lines = l.spare[:0], 0
	l.mu.Unlock()
	l.spare = nil
	if cap(buf) <= keepBuffer {
		l.spare = buf[:0]
	}
	if lines == 0 {
		return nil
	}
	kept, err := l.segment.append(buf)
	l.written.Add(uint64(kept))
	l.dropped.Add(lines - uint64(kept))
	l.note(err)
	return err
}

// note keeps the disk's last word and logs when its tune changes.
func (l *Log) note(err error) {
	before := l.failure.Load()
	switch {
	case err == nil && before != nil:
		l.failure.Store(nil)
		l.log.Info("audit log writes again", "dropped", l.dropped.Load())
	case err != nil && before == nil:
		l.failure.Store(&failure{err.Error(), time.Now()})
		l.log.Error("audit log loses events; make room on its disk", "error", err)
	case err != nil:
		l.failure.Store(&failure{err.Error(), before.at})
	}
}

// subscription is one follower.
type subscription struct {
	filter Filter
	events chan Event
	stop   func() bool // releases the context's callback
}

// subscriberQueue is how far a follower may fall behind before it misses events.
const subscriberQueue = 1024

// Subscribe returns the events recorded from now on that the filter selects. The
// channel is closed when ctx ends or the log is closed. A subscriber that lags
// misses events (counted in Stats); it never holds up recording.
func (l *Log) Subscribe(ctx context.Context, filter Filter) <-chan Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.subscribe(ctx, filter)
}

func (l *Log) subscribe(ctx context.Context, filter Filter) <-chan Event {
	s := &subscription{filter: filter, events: make(chan Event, subscriberQueue)}
	if l.closed || ctx.Err() != nil {
		close(s.events)
		return s.events
	}
	l.subs[s] = struct{}{}
	s.stop = context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.remove(s)
	})
	return s.events
}

// remove ends a subscription; l.mu is held.
func (l *Log) remove(s *subscription) {
	if _, live := l.subs[s]; live {
		delete(l.subs, s)
		s.stop()
		close(s.events)
	}
}

// offer hands the event to a subscriber that wants it; l.mu is held.
func (l *Log) offer(s *subscription, e *Event) {
	if !s.filter.Match(e) {
		return
	}
	select {
	case s.events <- *e:
	default:
		l.missed.Add(1)
	}
}
