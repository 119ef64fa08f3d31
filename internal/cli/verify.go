package cli

import (
	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/ui"
)

type verifyCmd struct{}

func (*verifyCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	checks, failed, skipped := []cell.Check{}, 0, 0
	held, err := c.Verify(a.ctx, func(check cell.Check) {
		checks = append(checks, check)
		switch {
		case check.Skipped:
			skipped++
		case !check.OK:
			failed++
		}
		if !a.ui.JSON() {
			a.printCheck(check)
		}
	})
	if err != nil {
		return err
	}
	err = a.answer(struct {
		Held   bool         `json:"held"`
		Checks []cell.Check `json:"checks"`
	}{held, checks}, func() {
		a.ui.Printf("%d passed, %d failed, %d skipped", len(checks)-failed-skipped, failed, skipped)
	})
	if err == nil && !held {
		return exitStatus(cell.ExitVerdict)
	}
	return err
}

func (a *app) printCheck(c cell.Check) {
	mark := a.ui.Style(ui.Green, "pass")
	switch {
	case c.Skipped:
		mark = a.ui.Style(ui.Yellow, "skip")
	case !c.OK:
		mark = a.ui.Style(ui.Red, "FAIL")
	}
	a.ui.Printf("%s  %-8s  %-22s  %s", mark, ui.Safe(c.Where), ui.Safe(c.Name), ui.Safe(c.Detail))
}
