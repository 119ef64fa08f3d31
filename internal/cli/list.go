package cli

import (
	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/ui"
)

type listCmd struct{}

func (*listCmd) Run(a *app) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	rows, err := h.List(a.ctx, a.flags.Instance)
	if err != nil {
		return err
	}
	if rows == nil {
		rows = []cell.Row{}
	}
	return a.answer(struct {
		Machines []cell.Row `json:"machines"`
	}{rows}, func() { a.printList(rows) })
}

func (a *app) printList(rows []cell.Row) {
	if len(rows) == 0 {
		a.ui.Printf("no instances; `rootcell` creates one")
		return
	}
	table := make([][]string, len(rows))
	for i, r := range rows {
		name, state := r.Instance, string(r.State)
		if r.Selected && a.flags.Instance == "" {
			name += " (selected)"
		}
		if r.Detail != "" {
			state += ": " + r.Detail
		}
		table[i] = []string{name, r.Machine, state}
	}
	a.ui.Table([]string{"instance", "vm", "state"}, table)
}

type selectCmd struct {
	Name string `arg:"" complete:"instance" help:"The instance."`
}

func (s *selectCmd) Run(a *app) error {
	if a.flags.Instance != "" {
		return &usage{"select takes the name as its argument, not as --instance"}
	}
	h, err := a.host()
	if err != nil {
		return err
	}
	if err := h.Root.Select(s.Name); err != nil {
		return err
	}
	return a.answer(done{Instance: s.Name, Done: "select"}, func() {
		a.ui.Printf("selected %s", ui.Safe(s.Name))
		if !h.Root.Exists(s.Name) {
			a.ui.Infof("instance %q does not exist yet; `rootcell` creates it", s.Name)
		}
	})
}
