package cell

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"

	"github.com/rootcell-ai/rootcell/internal/provider"
)

// Row is one machine in the list of instances.
type Row struct {
	Instance string         `json:"instance"`
	Machine  string         `json:"machine"`
	Role     provider.Role  `json:"role"`
	State    provider.State `json:"state"`
	Detail   string         `json:"detail,omitempty"`
	Selected bool           `json:"selected"`
}

// List shows the machines of every instance that has some and of the selected
// one, or those of the instance only when that is not "". What does not exist
// is missing, not an error. Agents come before firewalls.
func (h *Host) List(ctx context.Context, only string) ([]Row, error) {
	selected, err := h.Root.Selected()
	if err != nil && only == "" {
		return nil, err
	}
	names := []string{only}
	if only == "" {
		if names, err = h.Root.Instances(); err != nil {
			return nil, err
		}
		if selected != DefaultInstance && !slices.Contains(names, selected) {
			names = append(names, selected)
			slices.Sort(names)
		}
	}
	cells := make([]*Cell, len(names))
	for i, name := range names {
		if cells[i], err = h.Cell(name); err != nil {
			return nil, err
		}
	}
	rows := make([][]Row, len(cells))
	var wg sync.WaitGroup
	for i, c := range cells {
		wg.Go(func() { rows[i] = c.rows(ctx, c.Name == selected) })
	}
	wg.Wait()
	return slices.Concat(rows...), ctx.Err()
}

func (c *Cell) rows(ctx context.Context, selected bool) []Row {
	status, err := c.machines(ctx)
	var rows []Row
	for _, role := range []provider.Role{provider.RoleAgent, provider.RoleFirewall} {
		m := status.Machine(role)
		row := Row{Instance: c.Name, Machine: MachineName(role, c.Name), Role: role, State: m.State, Detail: m.Detail, Selected: selected}
		if err != nil {
			row.State, row.Detail = provider.StateUnexpected, err.Error()
		}
		rows = append(rows, row)
	}
	return rows
}

// machines is what the provider says of the machines; missing ones are no
// error.
func (c *Cell) machines(ctx context.Context) (provider.Status, error) {
	missing := provider.Status{
		Agent:    provider.MachineStatus{State: provider.StateMissing},
		Firewall: provider.MachineStatus{State: provider.StateMissing},
	}
	state, err := c.State()
	if errors.Is(err, fs.ErrNotExist) {
		return missing, nil
	}
	if err != nil {
		return missing, err
	}
	if state.Provider == "" {
		return missing, nil
	}
	p, err := c.maker(state)
	if err != nil {
		return missing, err
	}
	status, err := p.Status(ctx, c.id())
	if errors.Is(err, provider.ErrNotFound) {
		return missing, nil
	}
	return status, err
}

// ImagesInUse are the files of guest images that machines of the instances may
// be using.
func (h *Host) ImagesInUse() ([]string, error) {
	states, err := h.Root.states()
	if err != nil {
		return nil, err
	}
	var files []string
	for _, s := range states {
		files = append(files, s.Images...)
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}
