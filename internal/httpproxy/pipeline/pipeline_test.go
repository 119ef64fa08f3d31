package pipeline_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/google/martian/v3"

	"github.com/rootcell-ai/rootcell/internal/enforce"
	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/deny"
	"github.com/rootcell-ai/rootcell/internal/httpproxy/pipeline"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

func name(t testing.TB, s string) hostname.Name {
	t.Helper()
	n, err := hostname.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func gate(t testing.TB, glob, path string) *enforce.Gate {
	t.Helper()
	host, err := policy.ParseGlob(glob)
	if err != nil {
		t.Fatal(err)
	}
	rule := policy.Rule{Host: host, Where: "allowed-https.txt:1"}
	if path != "" {
		if rule.Path, err = policy.CompilePath(path); err != nil {
			t.Fatal(err)
		}
	}
	g := enforce.New()
	g.Swap(policy.New(policy.Rules{policy.KindHTTPS: {rule}}))
	return g
}

func judge(p *pipeline.Pipeline, x *pipeline.Exchange, method, host, target string) error {
	req := &http.Request{Method: method, Host: host, RequestURI: target, Header: http.Header{}}
	return p.Judge(req.WithContext(pipeline.With(context.Background(), x)))
}

func TestJudge(t *testing.T) {
	tests := map[string]struct {
		method, host, target string
		want                 policy.Reason
	}{
		"allowed":                        {"GET", "a.example", "/public/x", ""},
		"allowed with port and case":     {"GET", "A.Example.:443", "/public/x", ""},
		"A3 another host":                {"GET", "b.example", "/public/x", policy.SNIHostMismatch},
		"A5 a name below":                {"GET", "x.a.example", "/public/x", policy.SNIHostMismatch},
		"B1 list of hosts":               {"GET", "a.example, b.example", "/public/x", policy.Malformed},
		"B3 another port":                {"GET", "a.example:444", "/public/x", policy.Port},
		"B3 userinfo":                    {"GET", "x@a.example", "/public/x", policy.Malformed},
		"no host":                        {"GET", "", "/public/x", policy.Malformed},
		"B2 absolute form":               {"GET", "a.example", "https://a.example/public/x", policy.Malformed},
		"B14 CONNECT":                    {"CONNECT", "a.example", "a.example:443", policy.Tunnel},
		"B15 TRACE":                      {"TRACE", "a.example", "/public/x", policy.Malformed},
		"B15 asterisk without OPTIONS":   {"GET", "a.example", "*", policy.Malformed},
		"path rule":                      {"GET", "a.example", "/private", policy.PathRule},
		"B18 ambiguous where paths rule": {"GET", "a.example", "/public/../private", policy.AmbiguousPath},
		"method that is no token":        {"GE T", "a.example", "/public/x", policy.Malformed},
	}
	for id, test := range tests {
		t.Run(id, func(t *testing.T) {
			g := gate(t, "a.example", "GET /public/")
			x := &pipeline.Exchange{Name: name(t, "a.example")}
			err := judge(pipeline.New(g), x, test.method, test.host, test.target)
			defer x.Release()
			var denial *deny.Error
			switch {
			case test.want == "" && err == nil:
				if x.Decision().Rule != "allowed-https.txt:1" || g.Flows() != 1 {
					t.Errorf("decision %+v, %d flows", x.Decision(), g.Flows())
				}
			case test.want != "" && errors.As(err, &denial) && denial.Reason == test.want:
				if g.Flows() != 0 {
					t.Errorf("%d flows after a denial", g.Flows())
				}
			default:
				t.Errorf("err %v, want %q", err, test.want)
			}
		})
	}
}

func TestOverrides(t *testing.T) {
	for path, want := range map[string]bool{"GET /public/": false, "": true} {
		req := &http.Request{Method: "GET", Host: "a.example", RequestURI: "/public/x", Header: http.Header{"X-Http-Method-Override": {"DELETE"}}}
		x := &pipeline.Exchange{Name: name(t, "a.example")}
		err := pipeline.New(gate(t, "a.example", path)).Judge(req.WithContext(pipeline.With(context.Background(), x)))
		if x.Release(); (err == nil) != want {
			t.Errorf("B15: with rule %q: %v", path, err)
		}
	}
}

func TestErrorsAreDenials(t *testing.T) {
	broken := map[string]martian.RequestModifierFunc{
		"an error": func(*http.Request) error { return errors.New("no idea") },
		"a panic":  func(*http.Request) error { panic("no idea") },
	}
	for id, modifier := range broken {
		t.Run(id, func(t *testing.T) {
			x := &pipeline.Exchange{Name: name(t, "a.example")}
			defer x.Release()
			err := judge(pipeline.New(gate(t, "a.example", ""), modifier), x, "GET", "a.example", "/")
			var denial *deny.Error
			if !errors.As(err, &denial) || denial.Allow {
				t.Errorf("err %v, want a denial", err)
			}
		})
	}
	t.Run("a request outside a connection", func(t *testing.T) {
		if err := pipeline.New(gate(t, "a.example", "")).Judge(&http.Request{Method: "GET", Host: "a.example", RequestURI: "/"}); err == nil {
			t.Error("allowed")
		}
	})
}

// FuzzJudge holds that nothing is allowed but origin-form requests to the one name.
func FuzzJudge(f *testing.F) {
	f.Add("GET", "a.example", "/")
	f.Add("OPTIONS", "a.example:443", "*")
	f.Add("GET", "a.example:0443", "//b.example/")
	f.Add("GET", "[::1]", "/")
	p := pipeline.New(gate(f, "**", ""))
	want := name(f, "a.example")
	f.Fuzz(func(t *testing.T, method, host, target string) {
		x := &pipeline.Exchange{Name: want}
		defer x.Release()
		if judge(p, x, method, host, target) != nil {
			return
		}
		if n, port, err := hostname.ParseAuthority(host); err != nil || n != want || port != 0 && port != 443 {
			t.Errorf("authority %q was allowed", host)
		}
		if method == "CONNECT" || method == "TRACE" || target != "*" && target[0] != '/' {
			t.Errorf("%q %q was allowed", method, target)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	p := pipeline.New(gate(b, "a.example", ""))
	want := name(b, "a.example")
	b.ReportAllocs()
	for b.Loop() {
		x := &pipeline.Exchange{Name: want}
		if err := judge(p, x, "GET", "a.example", "/"); err != nil {
			b.Fatal(err)
		}
		x.Release()
	}
}
