package cell

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/rootcell-ai/rootcell/internal/config"
	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/provider"
)

// Report is everything there is to know about one instance.
type Report struct {
	Instance  string          `json:"instance"`
	Directory string          `json:"directory"`
	Selected  bool            `json:"selected"`
	Exists    bool            `json:"exists"`
	Version   string          `json:"version"` // of rootcell
	Provider  string          `json:"provider,omitempty"`
	State     *State          `json:"state,omitempty"`
	Machines  provider.Status `json:"machines"`

	// Provisioned says that the agent was provisioned completely; Pending that
	// the configuration changed since the machines were brought to it.
	Provisioned bool `json:"provisioned"`
	Pending     bool `json:"pending"`

	// Firewall is the daemon's own account; nil when it cannot be asked, and
	// FirewallError then says why.
	Firewall      *control.Status `json:"firewall,omitempty"`
	FirewallError string          `json:"firewallError,omitempty"`
	// ListsInForce says whether the daemon enforces the live allowlists.
	ListsInForce bool `json:"listsInForce"`

	Settings []config.Setting `json:"settings"`
	// Problems are those of the configuration.
	Problems []string `json:"problems"`
}

// statusWait bounds the question to the firewall: a status is for finding out
// what is wrong, so it must not hang on that.
const statusWait = 10 * time.Second

// Status describes the instance. An instance that does not exist is described
// as such.
func (c *Cell) Status(ctx context.Context) (Report, error) {
	r := Report{Instance: c.Name, Directory: c.Dir, Exists: c.Exists(), Version: c.Version, Problems: []string{}}
	if selected, err := c.Root.Selected(); err == nil {
		r.Selected = selected == c.Name
	}
	cfg, err := c.Config()
	var problems config.Problems
	if errors.As(err, &problems) {
		for _, p := range problems {
			r.Problems = append(r.Problems, p.String())
		}
	}
	r.Settings = cfg.Settings()
	r.Provider = cfg.ResolvedProvider(c.GOOS)

	state, err := c.State()
	switch {
	case err == nil:
		r.State = &state
		r.Provisioned = state.Provisioned != ""
		r.Pending = state.Configured != "" && state.Configured != configuredDigest(cfg)
		if state.Provider != "" {
			r.Provider = state.Provider
		}
	case !errors.Is(err, fs.ErrNotExist):
		return Report{}, err
	}
	if r.Machines, err = c.machines(ctx); err != nil {
		return Report{}, err
	}
	if r.Machines.Firewall.State == provider.StateRunning {
		if err := c.askFirewall(ctx, state, &r); err != nil {
			r.FirewallError = err.Error()
		}
	}
	return r, ctx.Err()
}

func (c *Cell) askFirewall(ctx context.Context, state State, r *Report) error {
	ctx, cancel := context.WithTimeoutCause(ctx, statusWait, errors.New("no answer in time"))
	defer cancel()
	p, err := c.maker(state)
	if err != nil {
		return err
	}
	l, err := c.connect(ctx, p, state, "")
	if err != nil {
		return err
	}
	defer l.Close()
	var status control.Status
	if err := l.ask(ctx, nil, &status, "ctl", "status"); err != nil {
		return err
	}
	r.Firewall = &status
	lists, err := c.lists()
	if err != nil {
		return err
	}
	r.ListsInForce = inForce(status, lists)
	return nil
}
