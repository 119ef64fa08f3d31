package enforce_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// flow is a tunnel to a host under the SSH list.
type flow struct {
	host    hostname.Name
	revoked atomic.Int32
	reason  atomic.Value
	block   chan struct{} // Revoke waits for it when not nil
	panics  bool
}

func (f *flow) Judge(p *policy.Policy) policy.Decision {
	if f.panics {
		panic("judging")
	}
	return p.SSH(f.host)
}

func (f *flow) Revoke(d policy.Decision) {
	f.reason.Store(d.Reason)
	f.revoked.Add(1)
	if f.block != nil {
		<-f.block
	}
}

func name(t testing.TB, s string) hostname.Name {
	t.Helper()
	n, err := hostname.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func allowing(t testing.TB, globs ...string) *policy.Policy {
	t.Helper()
	list := []policy.Rule{}
	for _, g := range globs {
		p, err := policy.ParseGlob(g)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, policy.Rule{Host: p, Where: "allowed-ssh.txt:1"})
	}
	return policy.New(policy.Rules{policy.KindSSH: list})
}

func TestNewGateDeniesEverything(t *testing.T) {
	g := enforce.New()
	if s := g.Current(); s.Generation != 0 || s.Policy != nil {
		t.Errorf("a new gate has %+v", s)
	}
	release, d := g.Admit(&flow{host: name(t, "git.example.com")})
	release()
	if d.Allow || d.Reason != policy.BadPolicy {
		t.Errorf("a new gate admits with %+v", d)
	}
	if n := g.Flows(); n != 0 {
		t.Errorf("%d flows are open after a refusal", n)
	}
}

func TestSwapRevokesWhatTheNewPolicyDenies(t *testing.T) {
	g := enforce.New()
	if gen := g.Swap(allowing(t, "a.example.com", "b.example.com")); gen != 1 {
		t.Errorf("the first swap makes generation %d", gen)
	}
	a, b := &flow{host: name(t, "a.example.com")}, &flow{host: name(t, "b.example.com")}
	releaseA, d := g.Admit(a)
	if !d.Allow || d.Rule == "" {
		t.Fatalf("admitting %s: %+v", a.host, d)
	}
	if _, d := g.Admit(b); !d.Allow {
		t.Fatalf("admitting %s: %+v", b.host, d)
	}
	if gen := g.Swap(allowing(t, "b.example.com")); gen != 2 || g.Current().Generation != 2 {
		t.Errorf("the second swap makes generation %d, current is %d", gen, g.Current().Generation)
	}
	if a.revoked.Load() != 1 || a.reason.Load() != policy.NoRule {
		t.Errorf("the flow without a rule was revoked %d times, for %v", a.revoked.Load(), a.reason.Load())
	}
	if b.revoked.Load() != 0 {
		t.Error("the flow with a rule was revoked")
	}
	if g.Flows() != 1 || g.Revoked() != 1 {
		t.Errorf("%d flows open, %d revoked; want 1 and 1", g.Flows(), g.Revoked())
	}
	releaseA()
	if g.Flows() != 1 {
		t.Errorf("releasing a revoked flow leaves %d flows open, want 1", g.Flows())
	}
	g.Swap(nil)
	if b.revoked.Load() != 1 || b.reason.Load() != policy.BadPolicy {
		t.Errorf("without a policy the flow was revoked %d times, for %v", b.revoked.Load(), b.reason.Load())
	}
}

func TestReleasedFlowsAreLeftAlone(t *testing.T) {
	g := enforce.New()
	g.Swap(allowing(t, "a.example.com"))
	f := &flow{host: name(t, "a.example.com")}
	release, _ := g.Admit(f)
	release()
	release()
	g.Swap(nil)
	if n := f.revoked.Load(); n != 0 {
		t.Errorf("a released flow was revoked %d times", n)
	}
	if n := g.Flows(); n != 0 {
		t.Errorf("%d flows are open", n)
	}
}

func TestFlowsThatPanicAreDenied(t *testing.T) {
	g := enforce.New()
	g.Swap(allowing(t, "a.example.com"))
	if _, d := g.Admit(&flow{panics: true}); d.Allow {
		t.Error("a flow whose Judge panics was admitted")
	}
	f := &flow{host: name(t, "a.example.com")}
	if _, d := g.Admit(f); !d.Allow {
		t.Fatalf("admitting: %+v", d)
	}
	f.panics = true
	g.Swap(allowing(t, "a.example.com"))
	if f.revoked.Load() != 1 {
		t.Error("a flow whose Judge panics stays open")
	}
}

func TestSwapDoesNotWaitForABlockedRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := enforce.New()
		g.Swap(allowing(t, "a.example.com"))
		stuck := &flow{host: name(t, "a.example.com"), block: make(chan struct{})}
		other := &flow{host: name(t, "a.example.com")}
		g.Admit(stuck)
		g.Admit(other)
		began := time.Now()
		g.Swap(nil)
		if took := time.Since(began); took >= time.Second {
			t.Errorf("the swap took %s", took)
		}
		if stuck.revoked.Load() != 1 || other.revoked.Load() != 1 {
			t.Error("a blocked revocation kept another from happening")
		}
		close(stuck.block)
	})
}

// swapper is a flow in whose first judgement the policy changes.
type swapper struct {
	flow
	swap func()
}

func (s *swapper) Judge(p *policy.Policy) policy.Decision {
	d := s.flow.Judge(p)
	if swap := s.swap; swap != nil {
		s.swap = nil
		swap()
	}
	return d
}

func TestASwapInTheMiddleOfAdmitCounts(t *testing.T) {
	g := enforce.New()
	g.Swap(allowing(t, "a.example.com"))
	f := &swapper{flow: flow{host: name(t, "a.example.com")}, swap: func() { g.Swap(allowing(t)) }}
	if _, d := g.Admit(f); d.Allow || d.Reason != policy.NoRule {
		t.Errorf("a flow judged under the old policy is admitted under the new one: %+v", d)
	}
	if n := g.Flows(); n != 0 {
		t.Errorf("%d flows are open", n)
	}
}

// TestAdmitAgainstSwap runs admissions against swaps. When all is done the last
// policy is in force and denies: no flow may be open, and each that was admitted
// was revoked or released exactly once.
func TestAdmitAgainstSwap(t *testing.T) {
	g := enforce.New()
	open, closed := allowing(t, "a.example.com"), allowing(t)
	host := name(t, "a.example.com")
	const workers, rounds = 8, 300
	var admitted [workers][]*flow
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				f := &flow{host: host}
				release, d := g.Admit(f)
				switch {
				case !d.Allow:
				case i%3 == 0:
					release()
				default:
					admitted[w] = append(admitted[w], f)
				}
			}
		})
	}
	wg.Go(func() {
		for range rounds {
			g.Swap(open)
			g.Swap(closed)
		}
	})
	wg.Wait()
	if n := g.Flows(); n != 0 {
		t.Errorf("%d flows stay open under a policy that denies them", n)
	}
	for _, flows := range admitted {
		for _, f := range flows {
			if n := f.revoked.Load(); n != 1 {
				t.Fatalf("a flow that nobody released was revoked %d times", n)
			}
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	g := enforce.New()
	g.Swap(allowing(b, "a.example.com"))
	f := &flow{host: name(b, "a.example.com")}
	b.ReportAllocs()
	for b.Loop() {
		release, _ := g.Admit(f)
		release()
	}
}

func BenchmarkSwapWith10000Flows(b *testing.B) {
	g := enforce.New()
	p := allowing(b, "a.example.com")
	g.Swap(p)
	for range 10000 {
		g.Admit(&flow{host: name(b, "a.example.com")})
	}
	for b.Loop() {
		g.Swap(p)
	}
}
