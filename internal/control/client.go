package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// answerTimeout bounds a request other than log. A reload of the largest policy
// takes well under a second.
const answerTimeout = 30 * time.Second

// Client talks to a daemon. It opens a connection for each request and is safe
// for concurrent use. It has nothing to close.
type Client struct {
	dial func(context.Context) (net.Conn, error)
}

// Dial returns a client of the daemon's Unix socket at path. Nothing is opened
// before the first request.
func Dial(path string) *Client {
	return NewClient(func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", path)
		if err != nil {
			return nil, fmt.Errorf("dialing the firewall daemon at %q: %w; see whether rootcell-firewall is running", path, err)
		}
		return conn, nil
	})
}

// NewClient returns a client that reaches the daemon through dial.
func NewClient(dial func(context.Context) (net.Conn, error)) *Client { return &Client{dial: dial} }

// Reload makes the daemon read its rule files again.
func (c *Client) Reload(ctx context.Context) (ReloadResult, error) {
	return c.change(ctx, Request{Version: Version, Verb: VerbReload})
}

// Grant allows line for the given time.
func (c *Client) Grant(ctx context.Context, kind, line string, life time.Duration) (ReloadResult, error) {
	return c.change(ctx, Request{Version: Version, Verb: VerbGrant, Kind: kind, Line: line, For: life.String()})
}

// Revoke ends the grant of line before its time.
func (c *Client) Revoke(ctx context.Context, kind, line string) (ReloadResult, error) {
	return c.change(ctx, Request{Version: Version, Verb: VerbRevoke, Kind: kind, Line: line})
}

// RevokeAll ends every grant.
func (c *Client) RevokeAll(ctx context.Context) (ReloadResult, error) {
	return c.change(ctx, Request{Version: Version, Verb: VerbRevoke, All: true})
}

// Status asks the daemon how it is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	response, err := c.one(ctx, Request{Version: Version, Verb: VerbStatus})
	if err != nil {
		return Status{}, err
	}
	if response.Status == nil {
		return Status{}, errors.New("reading the firewall's answer: it has no status")
	}
	return *response.Status, nil
}

func (c *Client) change(ctx context.Context, request Request) (ReloadResult, error) {
	response, err := c.one(ctx, request)
	if err != nil {
		return ReloadResult{}, err
	}
	if response.Reload == nil {
		return ReloadResult{}, errors.New("reading the firewall's answer: it has no result")
	}
	return *response.Reload, nil
}

// LogQuery selects audit events; see Request.
type LogQuery struct {
	Follow bool
	Denied bool
	Host   string
	Since  time.Time
	Limit  int
}

// Log calls event with each audit line (one JSON object, only valid during the
// call), oldest first, until the log or ctx ends or event returns an error. The
// end of ctx while following is no error.
func (c *Client) Log(ctx context.Context, query LogQuery, event func(json.RawMessage) error) error {
	request := Request{
		Version: Version, Verb: VerbLog, Follow: query.Follow, Denied: query.Denied,
		Host: query.Host, Since: query.Since, Limit: query.Limit,
	}
	err := c.stream(ctx, request, func(response Response) error {
		if response.Event == nil {
			return nil
		}
		return event(response.Event)
	})
	if query.Follow && ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *Client) one(ctx context.Context, request Request) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var answer Response
	err := c.stream(ctx, request, func(response Response) error {
		answer = response
		return nil
	})
	return answer, err
}

// stream sends request and calls each with every line of the answer. A refusal
// of the daemon is an *Error.
func (c *Client) stream(ctx context.Context, request Request, each func(Response) error) error {
	if err := request.Validate(); err != nil {
		return &Error{Code: CodeInvalid, Message: err.Error()}
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	cause := func(err error) error {
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for the firewall daemon: %w", context.Cause(ctx))
		}
		return err
	}
	if err := Write(conn, request); err != nil {
		return cause(err)
	}
	reader := bufio.NewReader(conn)
	for {
		response, err := ReadResponse(reader)
		if errors.Is(err, io.EOF) {
			return cause(fmt.Errorf("the firewall daemon closed the connection in the middle of its answer: %w", io.ErrUnexpectedEOF))
		}
		if err != nil {
			return cause(err)
		}
		if response.Error != nil {
			return response.Error
		}
		if err := each(response); err != nil {
			return err
		}
		if response.End {
			return nil
		}
	}
}
