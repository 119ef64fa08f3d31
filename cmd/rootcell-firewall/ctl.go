package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

type ctlCmd struct {
	configFlag

	Reload reloadCmd `cmd:"" help:"Read the lists again; exits with 2 when one of them was refused."`
	Status statusCmd `cmd:"" help:"Say what is in force."`
	Log    logCmd    `cmd:"" help:"Print decisions, one JSON object a line, oldest first."`
	Grant  grantCmd  `cmd:"" help:"Allow one line for a time."`
	Revoke revokeCmd `cmd:"" help:"End a grant before its time."`
}

// client returns a client of the daemon that the configuration describes.
func (c *ctlCmd) client(io streams) (*control.Client, error) {
	config, err := c.load(io.stderr)
	if err != nil {
		return nil, err
	}
	return control.Dial(config.Listen.Control), nil
}

// answer prints result as one line of JSON.
func answer(io streams, result any, err error) error {
	var refusal *control.Error
	if errors.As(err, &refusal) && refusal.Code == control.CodeInvalid {
		return exit{code: 2, cause: err}
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(io.stdout).Encode(result)
}

type reloadCmd struct{}

func (reloadCmd) Run(ctx context.Context, parent *ctlCmd, io streams) error {
	client, err := parent.client(io)
	if err != nil {
		return err
	}
	result, err := client.Reload(ctx)
	if err := answer(io, result, err); err != nil {
		return err
	}
	for _, problem := range result.Problems {
		if !problem.Warning {
			return exit{code: 2}
		}
	}
	return nil
}

type statusCmd struct{}

func (statusCmd) Run(ctx context.Context, parent *ctlCmd, io streams) error {
	client, err := parent.client(io)
	if err != nil {
		return err
	}
	status, err := client.Status(ctx)
	return answer(io, status, err)
}

type logCmd struct {
	Follow bool   `short:"f" help:"Go on with what is decided from now on."`
	Denied bool   `help:"Denials only."`
	Since  string `help:"Leave out what is older: a duration such as 10m, or a time in RFC 3339." placeholder:"TIME"`
	Host   string `help:"This host and those below it only." placeholder:"HOST"`
	Limit  int    `short:"n" help:"At most N past decisions, the newest ones; 0: ten thousand." placeholder:"N"`
}

func (c logCmd) Run(ctx context.Context, parent *ctlCmd, io streams) error {
	since, err := parseSince(c.Since, time.Now())
	if err != nil {
		return exit{code: 2, cause: err}
	}
	client, err := parent.client(io)
	if err != nil {
		return err
	}
	query := control.LogQuery{Follow: c.Follow, Denied: c.Denied, Host: c.Host, Since: since, Limit: c.Limit}
	err = client.Log(ctx, query, func(event json.RawMessage) error {
		_, err := io.stdout.Write(append(event, '\n'))
		return err
	})
	var refusal *control.Error
	if errors.As(err, &refusal) && refusal.Code == control.CodeInvalid {
		return exit{code: 2, cause: err}
	}
	return err
}

func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading --since %q: use a duration such as 10m, or a time such as 2026-11-22T18:00:00Z", text)
	}
	return at, nil
}

type grantCmd struct {
	Kind policy.Kind   `required:"" enum:"dns,https,ssh" help:"Kind of rule: ${enum}." placeholder:"KIND"`
	For  time.Duration `required:"" help:"How long." placeholder:"DURATION"`
	Line string        `arg:"" help:"The rule, as it would stand in its list."`
}

func (c grantCmd) Run(ctx context.Context, parent *ctlCmd, io streams) error {
	client, err := parent.client(io)
	if err != nil {
		return err
	}
	result, err := client.Grant(ctx, string(c.Kind), c.Line, c.For)
	return answer(io, result, err)
}

type revokeCmd struct {
	Kind policy.Kind `enum:"dns,https,ssh," default:"" help:"Kind of rule: dns, https or ssh." placeholder:"KIND"`
	All  bool        `help:"End every grant."`
	Line string      `arg:"" optional:"" help:"The rule, as it was granted."`
}

func (c revokeCmd) Run(ctx context.Context, parent *ctlCmd, io streams) error {
	client, err := parent.client(io)
	if err != nil {
		return err
	}
	if c.All && c.Line == "" && c.Kind == "" {
		result, err := client.RevokeAll(ctx)
		return answer(io, result, err)
	}
	if c.All {
		return exit{code: 2, cause: errors.New("revoking: give either a rule or --all")}
	}
	result, err := client.Revoke(ctx, string(c.Kind), c.Line)
	return answer(io, result, err)
}
