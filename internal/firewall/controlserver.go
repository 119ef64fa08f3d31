package firewall

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/rootcell-ai/rootcell/internal/audit"
	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

const (
	// maxControl bounds the control connections at once. Followers of the log hold one each.
	maxControl = 32
	// requestTimeout bounds how long a peer may take to send its request, and
	// writeTimeout how long to take each line of the answer.
	requestTimeout = 10 * time.Second
	writeTimeout   = 30 * time.Second
)

// listenControl opens the Unix socket at path, readable for its owner and group. A
// socket that nobody listens on any more is replaced.
func listenControl(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listening on %q: another daemon answers there; stop it first", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("listening on %q: something that is not a socket is there; remove it", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("removing a stale socket: %w", err)
		}
	}
	// The mode must be right from the first moment on, not after a chmod.
	old := syscall.Umask(0o117)
	defer syscall.Umask(old)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening for control: %w", err)
	}
	return listener, nil
}

// controlServer answers requests on the control socket.
type controlServer struct {
	book   *book
	audit  *audit.Log
	status func() control.Status
	log    *slog.Logger

	slots chan struct{}
	wg    sync.WaitGroup
}

// serve accepts until listener is closed, and returns when every connection is done.
func (s *controlServer) serve(ctx context.Context, listener net.Listener) {
	defer s.wg.Wait()
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Warn("accepting a control connection", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
		default:
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			_ = control.Write(conn, control.Response{Version: control.Version, End: true,
				Error: &control.Error{Code: control.CodeBusy, Message: "too many control connections are open; close some and try again"}})
			conn.Close()
			continue
		}
		s.wg.Go(func() {
			defer func() {
				if cause := recover(); cause != nil {
					s.log.Error("serving a control connection panicked", "cause", cause, "stack", string(debug.Stack()))
				}
				conn.Close()
				<-s.slots
			}()
			s.answer(ctx, conn.(*net.UnixConn))
		})
	}
}

// answer serves one request.
//
// Invariant: only root and the daemon's own user are listened to, whatever the
// socket's file mode has become (TestControlChecksWhoIsAsking).
func (s *controlServer) answer(ctx context.Context, conn *net.UnixConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	uid, err := peerUID(conn)
	if err != nil || !mayControl(uid, uint32(os.Geteuid())) {
		s.log.Warn("control connection refused", "uid", uid, "err", err)
		// Take what it says, at most one buffer, so that it hears the answer instead of
		// a broken connection.
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = bufio.NewReader(conn).ReadSlice('\n')
		_ = write(conn, control.Response{End: true, Error: &control.Error{Code: control.CodeRefused,
			Message: "only root and the daemon's own user may control the firewall"}})
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(requestTimeout))
	reader := bufio.NewReader(conn)
	request, err := control.ReadRequest(reader)
	if err != nil {
		_ = write(conn, control.Response{Error: &control.Error{Code: control.CodeInvalid, Message: err.Error()}, End: true})
		return
	}
	if request.Verb == control.VerbLog {
		s.sendLog(ctx, cancel, conn, reader, request)
		return
	}
	_ = write(conn, s.perform(request))
}

func mayControl(uid, own uint32) bool { return uid == 0 || uid == own }

// perform does everything but log.
func (s *controlServer) perform(request control.Request) control.Response {
	response := control.Response{End: true}
	var result control.ReloadResult
	var err error
	switch request.Verb {
	case control.VerbStatus:
		status := s.status()
		response.Status = &status
		return response
	case control.VerbReload:
		result = s.book.reload()
	case control.VerbGrant:
		result, err = s.book.give(policy.Kind(request.Kind), request.Line, request.Duration())
	case control.VerbRevoke:
		if request.All {
			result = s.book.revokeAll()
			break
		}
		result, err = s.book.revoke(policy.Kind(request.Kind), request.Line)
	}
	if err != nil {
		response.Error = asRefusal(err)
		return response
	}
	response.Reload = &result
	return response
}

// sendLog sends past events and, when asked to, those that follow until the peer
// hangs up.
func (s *controlServer) sendLog(ctx context.Context, cancel context.CancelFunc, conn *net.UnixConn, reader *bufio.Reader, request control.Request) {
	filter := audit.Filter{Denied: request.Denied, Host: request.Host, Since: request.Since}
	limit := request.Limit
	if limit == 0 {
		limit = control.AllLog
	}
	var past []audit.Event
	var live <-chan audit.Event
	var err error
	if request.Follow {
		_ = conn.SetReadDeadline(time.Time{})
		s.wg.Go(func() {
			defer cancel()
			_, _ = reader.ReadByte() // the peer has nothing more to say: this waits for its end
		})
		past, live, err = s.audit.Follow(ctx, filter, limit)
	} else {
		past, err = s.audit.Recent(ctx, filter, limit)
	}
	if err != nil {
		_ = write(conn, control.Response{Error: asRefusal(err), End: true})
		return
	}
	out := bufio.NewWriterSize(conn, 32<<10)
	send := func(e audit.Event) error {
		_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		return control.Write(out, control.Response{Version: control.Version, Event: e.AppendJSON(nil)})
	}
	for _, e := range past {
		if send(e) != nil {
			return
		}
	}
	past = nil
	if out.Flush() != nil {
		return
	}
	if request.Follow {
		for e := range live {
			if send(e) != nil || len(live) == 0 && out.Flush() != nil {
				return
			}
		}
		if out.Flush() != nil {
			return
		}
	}
	_ = write(conn, control.Response{End: true})
}

func write(conn net.Conn, response control.Response) error {
	response.Version = control.Version
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	return control.Write(conn, response)
}
