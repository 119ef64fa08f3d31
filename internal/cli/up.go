package cli

import "github.com/rootcell-ai/rootcell/internal/cell"

// done is the JSON answer of commands that only do something.
type done struct {
	Instance string `json:"instance"`
	Done     string `json:"done"`
}

func (a *app) did(c *cell.Cell, verb, text string) error {
	return a.answer(done{Instance: c.Name, Done: verb}, func() { a.ui.Printf("%s %s", text, c.Name) })
}

type upCmd struct{}

func (*upCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	if err := c.Up(a.ctx, cell.UpOptions{}); err != nil {
		return err
	}
	return a.did(c, "up", "running")
}

type provisionCmd struct{}

func (*provisionCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	if err := c.Up(a.ctx, cell.UpOptions{Provision: true}); err != nil {
		return err
	}
	return a.did(c, "provision", "provisioned")
}

type stopCmd struct{}

func (*stopCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	if err := c.Stop(a.ctx); err != nil {
		return err
	}
	return a.did(c, "stop", "stopped")
}

type removeCmd struct{}

func (*removeCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	if err := c.Remove(a.ctx); err != nil {
		return err
	}
	return a.did(c, "remove", "removed the machines of")
}

type resetCmd struct{}

func (*resetCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	if err := c.Reset(a.ctx); err != nil {
		return err
	}
	return a.did(c, "reset", "reset")
}
