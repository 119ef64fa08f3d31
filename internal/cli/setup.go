package cli

import (
	"fmt"
	"os/exec"

	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/provider"
)

type initCmd struct {
	Provider string `arg:"" help:"The provider that runs the machines, such as qemu."`
}

func (cmd *initCmd) Run(a *app) error { return a.initialise(cmd.Provider) }

func (a *app) initialise(providerName string) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	if err := c.Init(a.ctx, providerName); err != nil {
		return err
	}
	return a.answer(struct {
		Instance  string `json:"instance"`
		Directory string `json:"directory"`
		Provider  string `json:"provider"`
	}{c.Name, c.Dir, providerName}, func() {
		a.ui.Printf("initialised %s for %s in %s", c.Name, providerName, c.Dir)
	})
}

// initEnvProvider is the provider that a name of --init-env means; the names
// are those of the TypeScript rootcell.
func initEnvProvider(name string) string {
	switch name {
	case "macos-lima":
		return "lima"
	case "linux-qemu":
		return "qemu"
	}
	return name
}

type doctorCmd struct {
	Fix bool `help:"Install the missing packages, after asking."`
	Yes bool `short:"y" help:"Do not ask."`
}

func (cmd *doctorCmd) Run(a *app) error {
	d, err := a.diagnose()
	if err != nil {
		return err
	}
	if cmd.Fix && d.Install != "" {
		if err := a.install(d, cmd.Yes); err != nil {
			return err
		}
		if d, err = a.diagnose(); err != nil {
			return err
		}
	}
	err = a.answer(d, func() { a.printDiagnosis(d) })
	if err == nil && d.Bad() {
		return exitStatus(cell.ExitFailed)
	}
	return err
}

func (a *app) diagnose() (cell.Diagnosis, error) {
	c, err := a.cell()
	if err != nil {
		return cell.Diagnosis{}, err
	}
	images, _ := c.Images.(provider.Preflighter)
	return c.Doctor(a.ctx, images)
}

func (a *app) printDiagnosis(d cell.Diagnosis) {
	rows := make([][]string, len(d.Findings))
	for i, f := range d.Findings {
		text := f.Text
		if f.Level != provider.LevelOK && f.Fix != "" {
			text += "; " + f.Fix
		}
		rows[i] = []string{string(f.Level), f.Name, text}
	}
	a.ui.Table(nil, rows)
	if d.Install != "" {
		a.ui.Printf("\nto install what is missing (`rootcell doctor --fix` runs it):\n%s", d.Install)
	}
}

// install runs the one visible apt-get line. Nothing is installed without an
// answer of the user.
func (a *app) install(d cell.Diagnosis, yes bool) error {
	a.ui.Infof("to install: %s", d.Install)
	if !yes {
		ok, err := a.ui.Question("Run it now?")
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
	}
	cmd := exec.CommandContext(a.ctx, "sh", "-c", d.Install)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.Stdin, a.ui.Stderr(), a.ui.Stderr()
	cmd.Env = append(a.Environ, "DEBIAN_FRONTEND=noninteractive")
	if err := cmd.Run(); err != nil {
		if _, lookErr := exec.LookPath("apt-get"); lookErr != nil {
			return fmt.Errorf("running %q: %w; this is no Debian, so install the equivalent packages of your system", d.Install, err)
		}
		return fmt.Errorf("running %q: %w; run it yourself to see why", d.Install, err)
	}
	return nil
}
