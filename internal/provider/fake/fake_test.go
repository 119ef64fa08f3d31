package fake_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/provider"
	"github.com/rootcell-ai/rootcell/internal/provider/fake"
	"github.com/rootcell-ai/rootcell/internal/provider/providertest"
)

func spec(t *testing.T) provider.Spec {
	return provider.Spec{
		ID:       provider.CellID{Instance: "default", Dir: filepath.Join(t.TempDir(), "v")},
		Agent:    provider.Machine{Name: "agent", CPUs: 1, MemoryBytes: 1 << 30, DiskBytes: 8 << 30, Image: "one"},
		Firewall: provider.Machine{Name: "firewall", CPUs: 1, MemoryBytes: 192 << 20, DiskBytes: 64 << 20},
	}
}

func TestConformance(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		p := fake.New(fake.Options{})
		s := spec(t)
		return providertest.Subject{
			Provider:   p,
			Reopen:     func() provider.Provider { return p },
			Spec:       s,
			OtherImage: "two",
			Kill:       func(_ *testing.T, role provider.Role) { p.Kill(s.ID, role) },
			Snapshot: func(t *testing.T) string {
				applied, ok := p.Applied(s.ID)
				return fmt.Sprintf("%v %+v", ok, applied)
			},
			Answers: true,
		}
	})
}

func TestAnInjectedErrorIsReturnedOnce(t *testing.T) {
	p := fake.New(fake.Options{})
	broken := errors.New("broken")
	p.FailNext("Apply", broken)
	if err := p.Apply(t.Context(), spec(t), nil); !errors.Is(err, broken) {
		t.Errorf("the first Apply = %v, want the injected error", err)
	}
	if err := p.Apply(t.Context(), spec(t), nil); err != nil {
		t.Errorf("the second Apply: %v", err)
	}
}

func TestServePlaysTheFirewall(t *testing.T) {
	p := fake.New(fake.Options{Serve: func(id provider.CellID, conn net.Conn) {
		defer conn.Close()
		fmt.Fprintf(conn, "hello from %s", id.Instance)
	}})
	s := spec(t)
	if err := p.Apply(context.Background(), s, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := p.DialFirewall(t.Context(), s.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello from default" {
		t.Errorf("read %q, %v", got, err)
	}
}
