//go:build linux

// Package boot is the common first part of both guests' init: it mounts what
// the kernel offers, loads the image's modules, reads the host's document and
// hands over to the role in it.
package boot

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/rootcell-ai/rootcell/internal/guest/agentinit"
	"github.com/rootcell-ai/rootcell/internal/guest/firewallinit"
	"github.com/rootcell-ai/rootcell/internal/guest/machine"
	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

// ModuleList names the kernel modules of an initramfs, in load order.
const ModuleList = "/lib/modules/load"

// Run is PID 1. It returns only when switching the machine off was refused.
func Run(ctx context.Context) {
	// Without /dev there is no console; the mounts come first and their error
	// is shown by whatever console there is.
	mountErr := machine.MountAll(machine.KernelMounts())
	console := machine.Console()
	log := slog.New(slog.NewTextHandler(console, nil))
	err := mountErr
	if err == nil {
		err = start(ctx, log)
	}
	if err != nil {
		fmt.Fprintf(console, "rootcell-guest: closed: %v\n", err)
	}
	if err := machine.PowerOff(); err != nil {
		log.Error("switching off", "err", err)
	}
}

func start(ctx context.Context, log *slog.Logger) error {
	if err := machine.LoadModules(ModuleList, log); err != nil {
		return err
	}
	cfg, err := machine.ReadConfig()
	if err != nil {
		return err
	}
	log.Info("booting", "role", cfg.Role, "instance", cfg.Instance)
	switch cfg.Role {
	case guestcfg.RoleFirewall:
		return firewallinit.Run(ctx, cfg, log)
	case guestcfg.RoleAgent:
		return agentinit.Run(ctx, cfg, log)
	}
	return fmt.Errorf("booting: no role %q", cfg.Role)
}
