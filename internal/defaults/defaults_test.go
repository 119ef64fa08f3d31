package defaults

import (
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

func name(t *testing.T, s string) hostname.Name {
	t.Helper()
	n, err := hostname.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDefaultsLoadWithoutAWarning(t *testing.T) {
	p, problems := policyfile.Compile(Files())
	for _, problem := range problems {
		t.Error(problem)
	}
	for _, kind := range policy.Kinds() {
		if n, ok := p.Loaded(kind); !ok || n == 0 {
			t.Errorf("%s: %d rules, loaded: %v", kind, n, ok)
		}
	}
}

func TestEveryDefaultHTTPSHostResolves(t *testing.T) {
	p, _ := policyfile.Compile(Files())
	rules, _ := policyfile.Parse(policy.KindHTTPS, policyfile.HTTPSFile, []byte(https))
	for _, rule := range rules {
		if strings.Contains(rule.Host.String(), "*") {
			t.Errorf("%s is a wildcard", rule)
			continue
		}
		if d := p.DNS(name(t, rule.Host.String())); !d.Allow {
			t.Errorf("%s does not resolve: %s", rule, d.Reason)
		}
	}
}

func TestDefaultsDecide(t *testing.T) {
	p, _ := policyfile.Compile(Files())
	for host, want := range map[string]bool{
		"github.com": true, "api.github.com": true, "codeload.github.com": true, "objects.githubusercontent.com": true,
		"registry.npmjs.org": true, "pypi.org": true, "files.pythonhosted.org": true, "static.crates.io": true,
		"proxy.golang.org": true, "cache.nixos.org": true, "api.anthropic.com": true, "api.openai.com": true,
		"bedrock-runtime.us-east-1.amazonaws.com": true, "bedrock-runtime-fips.us-east-1.amazonaws.com": true,
		// Where strangers get a name:
		"x.githubusercontent.com": false, "x.github.io": false, "x.cloudfront.net": false, "x.cachix.org": false,
		"bedrock-runtime.s3.amazonaws.com": false, "bedrock-runtime.s3-us-west-2.amazonaws.com": false, "x.amazonaws.com": false,
		"x.visualstudio.com": false, "x.pythonhosted.org": false, "dns.google": false, "cloudflare-dns.com": false, "example.com": false,
	} {
		if d := p.TLS(name(t, host)); d.Allow != want {
			t.Errorf("HTTPS %s: %+v", host, d)
		}
		if d := p.DNS(name(t, host)); d.Allow != want {
			t.Errorf("DNS %s: %+v", host, d)
		}
	}
	for host, want := range map[string]bool{"github.com": true, "ssh.dev.azure.com": true, "api.github.com": false, "example.com": false} {
		if d := p.SSH(name(t, host)); d.Allow != want {
			t.Errorf("SSH %s: %+v", host, d)
		}
	}
}

// The examples in the comments teach the syntax, so they have to be right.
func TestExamplesInTheCommentsAreRules(t *testing.T) {
	examples := 0
	for line := range strings.SplitSeq(https, "\n") {
		text, indented := strings.CutPrefix(line, "#   ")
		if !indented || strings.HasPrefix(text, "HOST-GLOB") {
			continue
		}
		examples++
		if _, problems := policyfile.ParseLine(policy.KindHTTPS, "example", text); len(problems) > 0 {
			t.Errorf("%q: %v", text, problems)
		}
	}
	if examples < 3 {
		t.Errorf("found %d examples", examples)
	}
}
