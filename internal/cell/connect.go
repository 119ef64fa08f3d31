package cell

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/sshx"
)

// How long machines may take from being started to answering. Software
// emulation on a busy host needs most of it.
const (
	firewallBoot = 2 * time.Minute
	agentBoot    = 5 * time.Minute
)

// firewallUser is the only login of the firewall.
const firewallUser = "rootcell"

// maxAnswer bounds what a firewall verb may answer: guests are not trusted to
// be brief.
const maxAnswer = 16 << 20

// link is the way into a running cell: one connection to the firewall and,
// once asked for, one through it to the agent.
type link struct {
	cell     *Cell
	provider provider.Provider
	keys     keys
	agentIP  netip.Addr
	user     string
	firewall *sshx.Client
	agent    *sshx.Client
}

// connect opens the link to the firewall. It waits for a firewall that boots.
func (c *Cell) connect(ctx context.Context, p provider.Provider, s State, user string) (*link, error) {
	ks, err := c.ensureKeys()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, firewallBoot, errors.New("the firewall did not answer in time"))
	defer cancel()
	client, err := sshx.Connect(ctx, sshx.Options{
		Dial:             func(ctx context.Context) (net.Conn, error) { return p.DialFirewall(ctx, c.id()) },
		User:             firewallUser,
		Key:              ks.control.signer,
		HostKey:          ks.firewall.signer.PublicKey(),
		HandshakeTimeout: firewallBoot,
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to the firewall of instance %q: %w; %s says how it is", c.Name, err, c.Hint("status"))
	}
	c.Logger.Debug("connected to the firewall", "took", time.Since(begun))
	return &link{cell: c, provider: p, keys: ks, agentIP: s.AgentIP, user: user, firewall: client}, nil
}

// Close ends the connections.
func (l *link) Close() {
	if l.agent != nil {
		l.agent.Close()
	}
	l.firewall.Close()
}

// enter opens the connection to the agent. It waits for an agent that boots.
func (l *link) enter(ctx context.Context) error {
	if l.agent != nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, agentBoot, errors.New("the agent did not answer in time"))
	defer cancel()
	begun := time.Now()
	addr := netip.AddrPortFrom(l.agentIP, 22).String()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		client, err := l.firewall.Through(ctx, addr, sshx.Options{
			User:    l.user,
			Key:     l.keys.control.signer,
			HostKey: l.keys.agent.signer.PublicKey(),
		})
		if err == nil {
			l.agent = client
			l.cell.Logger.Debug("connected to the agent", "took", time.Since(begun))
			return nil
		}
		// A wrong key stays wrong; a lost firewall does not come back on this
		// connection.
		if errors.Is(err, sshx.ErrHostKey) || l.firewall.Err() != nil {
			return l.cell.agentError(err)
		}
		if ended := l.agentEnded(ctx); ended != nil {
			return ended
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return l.cell.agentError(fmt.Errorf("%w (last: %w)", context.Cause(ctx), err))
		case <-timer.C:
		}
	}
}

// agentEnded says that nobody will answer because the agent's machine is not
// running, and nil when it is or nothing is known.
func (l *link) agentEnded(ctx context.Context) error {
	status, err := l.provider.Status(ctx, l.cell.id())
	if err != nil || status.Agent.State == provider.StateRunning {
		return nil
	}
	return fmt.Errorf("the agent of instance %q is %s (%s); %s starts it again, %s with a fresh disk",
		l.cell.Name, status.Agent.State, status.Agent.Detail, l.cell.Hint("up"), l.cell.Hint("reset"))
}

func (c *Cell) agentError(err error) error {
	return fmt.Errorf("connecting to the agent of instance %q: %w; %s says how it is", c.Name, err, c.Hint("status"))
}

// ask runs one of the firewall's verbs and decodes its JSON answer into out,
// unless out is nil.
func (l *link) ask(ctx context.Context, stdin []byte, out any, verb ...string) error {
	answer, err := l.firewall.Exchange(ctx, maxAnswer, bytes.NewReader(stdin), verb...)
	name := strings.Join(verb, " ")
	var exit *sshx.ExitError
	switch {
	case errors.As(err, &exit):
		return &refusal{verb: name, code: exit.Status, text: strings.TrimSpace(exit.Stderr)}
	case err != nil:
		return fmt.Errorf("asking the firewall of instance %q for %q: %w", l.cell.Name, name, err)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("reading the firewall's answer to %q: %w", name, err)
	}
	return nil
}

// refusal is a verb that the firewall answered with a non-zero status. Its text
// is the guest's own; whoever prints errors escapes them.
type refusal struct {
	verb string
	code int
	text string
}

func (r *refusal) Error() string {
	text := strings.TrimPrefix(r.text, "rootcell-firewall: ")
	if text == "" {
		text = fmt.Sprintf("exit status %d", r.code)
	}
	return fmt.Sprintf("the firewall refused %q: %s", r.verb, text)
}
