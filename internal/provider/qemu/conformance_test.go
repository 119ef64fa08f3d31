package qemu

import (
	"os"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/provider/providertest"
)

func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		p, spec := cell(t, Options{})
		d := dirOf(spec.ID)
		return providertest.Subject{
			Provider:   p,
			Reopen:     func() provider.Provider { return New(p.opts) },
			Spec:       spec,
			OtherImage: spec.Agent.Image[:len(spec.Agent.Image)-len("one.img")] + "two.img",
			Kill:       func(t *testing.T, role provider.Role) { killProcess(t, spec.ID, role) },
			Litter: func(t *testing.T) {
				for _, role := range roles {
					for name, text := range map[string]string{
						// Process 1 lives and is not ours.
						file(role, "pid"): "1\n", file(role, "qmp"): "", file(role, "net"): "",
						diskFile(role) + ".new": "half", file(role, "kernel") + ".new": "half",
					} {
						if d.exists(name) {
							continue // QEMU left the real thing
						}
						if err := os.WriteFile(d.path(name), []byte(text), 0o600); err != nil {
							t.Fatal(err)
						}
					}
				}
			},
			Snapshot: func(t *testing.T) string { return listing(t, string(d)) },
		}
	})
}
