package deny_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/httpproxy/deny"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

func TestBodySaysWhatToDo(t *testing.T) {
	tests := map[string]struct {
		denial   *deny.Error
		instance string
		request  deny.Request
		want     []string
	}{
		"host": {deny.For(policy.NoRule, ""), "default", deny.Request{Host: "a.example", Method: "GET", Target: "/x"},
			[]string{"(no-rule)", "https", "a.example", "GET /x", "allowed-https.txt", "rootcell allow a.example\n"}},
		"other instance": {deny.For(policy.NoRule, ""), "work", deny.Request{Host: "a.example"},
			[]string{"rootcell -i work allow a.example\n"}},
		"path": {&deny.Error{Decision: policy.Decision{Reason: policy.PathRule, Rule: "allowed-https.txt:7"}}, "default",
			deny.Request{Host: "a.example", Method: "GET", Target: "/v1.0/x?secret=y"},
			[]string{"allowed-https.txt:7", `rootcell allow a.example --path 'GET /v1\.0/x'`}},
		"bad policy": {deny.For(policy.BadPolicy, ""), "default", deny.Request{Host: "a.example"},
			[]string{"rootcell policy check"}},
	}
	for id, test := range tests {
		t.Run(id, func(t *testing.T) {
			kind, body := test.denial.Body(test.instance, test.request)
			for _, want := range test.want {
				if !strings.Contains(string(body), want) {
					t.Errorf("%q is missing in\n%s", want, body)
				}
			}
			if kind != "text/plain; charset=utf-8" {
				t.Errorf("content type %q", kind)
			}
		})
	}
}

func TestJSONOnRequest(t *testing.T) {
	for accept, want := range map[string]bool{
		"application/json": true, "application/problem+json;q=0.9, */*": true, "*/*": false, "": false,
		"text/html, application/json": false, "application/json, text/plain": true,
	} {
		kind, body := deny.For(policy.NoRule, "").Body("default", deny.Request{Host: "a.example", Accept: accept})
		var doc struct{ Denied bool }
		isJSON := json.Unmarshal(body, &doc) == nil && doc.Denied && kind == "application/json"
		if isJSON != want {
			t.Errorf("Accept %q: JSON %v, want %v", accept, isJSON, want)
		}
	}
}

func TestCommandIsSafeToPaste(t *testing.T) {
	for _, target := range []string{"/'; rm -rf ~ #", "/$(x)", "/`x`", "/a\nb", "/\x1b[2J", "/%27", "/" + strings.Repeat("a", 1000)} {
		_, body := deny.For(policy.PathRule, "").Body("default", deny.Request{Host: "a.example", Method: "GET", Target: target})
		_, command, ok := strings.Cut(string(body), "run on the host: ")
		if !ok || command != "rootcell allow a.example --path 'REGEX'\n" {
			t.Errorf("target %q: command %q", target, command)
		}
	}
}

func TestStatusCodes(t *testing.T) {
	for reason, want := range map[policy.Reason]int{
		policy.NoRule: 403, policy.PathRule: 403, policy.AmbiguousPath: 403, policy.SNIHostMismatch: 403, policy.Tunnel: 403,
		policy.SpecialAddress: 403, policy.BadPolicy: 403, policy.Port: 403, policy.Malformed: 400, policy.NotHTTP: 400,
		policy.Limit: 503, policy.UpstreamCert: 502, policy.UpstreamProtocol: 502, policy.UpstreamUnreachable: 502,
	} {
		if got := deny.For(reason, "").StatusCode(); got != want {
			t.Errorf("%s: %d, want %d", reason, got, want)
		}
	}
}
