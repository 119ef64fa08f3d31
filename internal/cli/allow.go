package cli

import (
	"maps"
	"slices"
	"time"

	"github.com/rootcell-ai/rootcell/internal/cell"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
	"github.com/rootcell-ai/rootcell/internal/ui"
)

type allowCmd struct {
	Hosts []string      `arg:"" optional:"" name:"host" help:"Hosts to add to the lists first."`
	DNS   bool          `name:"dns" help:"Add to the DNS list."`
	HTTPS bool          `name:"https" help:"Add to the HTTPS list; without --dns, --https and --ssh the hosts go to both."`
	SSH   bool          `name:"ssh" help:"Add to the SSH list."`
	Path  string        `placeholder:"REGEX" help:"Allow only HTTPS requests whose \"METHOD /path?query\" begins with a match."`
	For   time.Duration `placeholder:"TIME" help:"Let it end by itself after a time such as 30m; nothing is written to the lists."`
}

func (cmd *allowCmd) Run(a *app) error {
	c, err := a.cell()
	if err != nil {
		return err
	}
	o := cell.AllowOptions{Hosts: cmd.Hosts, Path: cmd.Path, For: cmd.For}
	for _, k := range []struct {
		on   bool
		kind policy.Kind
	}{{cmd.DNS, policy.KindDNS}, {cmd.HTTPS, policy.KindHTTPS}, {cmd.SSH, policy.KindSSH}} {
		if k.on {
			o.Kinds = append(o.Kinds, k.kind)
		}
	}
	if cmd.Path != "" && len(o.Kinds) > 0 && !cmd.HTTPS {
		return &usage{"--path is about HTTPS; add --https"}
	}
	result, err := c.Allow(a.ctx, o)
	if err != nil {
		return err
	}
	return a.answer(result, func() { a.printAllow(result) })
}

func (a *app) printAllow(result cell.AllowResult) {
	for _, g := range result.Granted {
		a.ui.Printf("%s: %s until %s", g.Kind, ui.Safe(g.Line), g.Expires.Local().Format(time.DateTime))
	}
	changed := result.Reload.Changed
	for _, kind := range slices.Sorted(maps.Keys(changed)) {
		name := policyfile.FileName(policy.Kind(kind))
		if name == "" {
			name = ui.Safe(kind)
		}
		for _, line := range changed[kind].Removed {
			a.ui.Printf("%s: - %s", name, ui.Safe(line))
		}
		for _, line := range changed[kind].Added {
			a.ui.Printf("%s: + %s", name, ui.Safe(line))
		}
	}
	if len(changed) == 0 {
		a.ui.Printf("nothing changed; the firewall enforces the lists (generation %d)", result.Reload.Generation)
	} else {
		a.ui.Printf("in force (generation %d)", result.Reload.Generation)
	}
	switch n := result.Reload.Revoked; {
	case n == 1:
		a.ui.Printf("closed 1 connection that is not allowed any more")
	case n > 1:
		a.ui.Printf("closed %d connections that are not allowed any more", n)
	}
}
