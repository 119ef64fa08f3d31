package cell

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

// PolicyCheck reads the allowlists of the instance, or of dir when that is not
// "", and returns what is wrong or doubtful about them. Nothing is changed.
func (c *Cell) PolicyCheck(dir string) (policyfile.Problems, error) {
	files, problems, err := c.policyFiles(dir)
	if err != nil {
		return nil, err
	}
	for kind, file := range files {
		_, found := policyfile.Parse(kind, file.Name, []byte(file.Text))
		problems = append(problems, found...)
	}
	return c.located(dir, problems), nil
}

// policyFiles are the lists of dir, or the live ones of the instance. Lists
// that an instance does not have yet are those that it will start with.
func (c *Cell) policyFiles(dir string) (policyfile.Files, policyfile.Problems, error) {
	if dir != "" {
		files, problems := policyfile.Load(dir)
		return files, problems, nil
	}
	if !c.Exists() {
		return nil, nil, c.missing()
	}
	files, problems := policyfile.Load(c.path("proxy"))
	for kind, file := range seeds() {
		if _, ok := files[kind]; ok {
			continue
		}
		if missing := slices.IndexFunc(problems, func(p policyfile.Problem) bool { return p.File == file.Name }); missing >= 0 && !c.hasList(file.Name) {
			problems = slices.Delete(problems, missing, missing+1)
			files[kind] = file
		}
	}
	return files, problems, nil
}

// PolicyLists are the lists that PolicyCheck reads; those with errors are among
// them and deny their kind.
func (c *Cell) PolicyLists(dir string) (policyfile.Files, error) {
	files, _, err := c.policyFiles(dir)
	return files, err
}

func (c *Cell) located(dir string, problems policyfile.Problems) policyfile.Problems {
	located := make(policyfile.Problems, len(problems))
	for i, p := range problems {
		if dir == "" {
			p.File = c.path("proxy", p.File)
		}
		located[i] = p
	}
	slices.SortStableFunc(located, func(a, b policyfile.Problem) int { return strings.Compare(a.File, b.File) })
	return located
}

// Explanation says how a policy decides one thing.
type Explanation struct {
	Kind    policy.Kind   `json:"kind"`
	Host    string        `json:"host"`
	Method  string        `json:"method,omitempty"`
	Target  string        `json:"target,omitempty"`
	Verdict string        `json:"verdict"` // allow or deny
	Reason  policy.Reason `json:"reason,omitempty"`
	Meaning string        `json:"meaning,omitempty"`
	Rule    string        `json:"rule,omitempty"` // the line that decided
	// Matching are all lines about the host, with where they stand.
	Matching []string `json:"matching"`
}

// Explain says which line decides about subject: `dns HOST`, `ssh HOST`, or
// `https [METHOD] URL`.
func (c *Cell) Explain(dir string, subject []string) (Explanation, error) {
	kind, request, err := parseSubject(subject)
	if err != nil {
		return Explanation{}, err
	}
	files, _, err := c.policyFiles(dir)
	if err != nil {
		return Explanation{}, err
	}
	p, _ := policyfile.Compile(files)
	var d policy.Decision
	switch kind {
	case policy.KindDNS:
		d = p.DNS(request.Host)
	case policy.KindSSH:
		d = p.SSH(request.Host)
	default:
		d = p.HTTPS(request)
	}
	e := Explanation{
		Kind: kind, Host: request.Host.String(), Method: request.Method, Target: request.Target,
		Verdict: "deny", Reason: d.Reason, Meaning: d.Reason.Meaning(), Rule: d.Rule, Matching: []string{},
	}
	if d.Allow {
		e.Verdict = "allow"
	}
	for _, r := range p.Matching(kind, request.Host) {
		e.Matching = append(e.Matching, r.Where+": "+r.String())
	}
	return e, nil
}

func parseSubject(subject []string) (policy.Kind, policy.Request, error) {
	const how = "write `dns HOST`, `ssh HOST` or `https [METHOD] URL`"
	var none policy.Request
	if len(subject) < 2 || len(subject) > 3 {
		return "", none, usageError("nothing to explain; %s", how)
	}
	kind := policy.Kind(subject[0])
	if !slices.Contains(policy.Kinds(), kind) {
		return "", none, usageError("%q is no kind of rule; %s", subject[0], how)
	}
	if kind != policy.KindHTTPS {
		if len(subject) != 2 {
			return "", none, usageError("%q takes one host; %s", subject[0], how)
		}
		host, err := hostname.ParseUser(subject[1])
		if err != nil {
			return "", none, &Error{Code: ExitUsage, Err: err}
		}
		return kind, policy.Request{Host: host}, nil
	}
	method, target := "GET", subject[1]
	if len(subject) == 3 {
		method, target = subject[1], subject[2]
	}
	request, err := parseURL(method, target)
	return kind, request, err
}

// parseURL takes the target of a URL byte for byte, as a client would send it.
func parseURL(method, text string) (policy.Request, error) {
	rest, ok := strings.CutPrefix(text, "https://")
	if !ok {
		if scheme, _, has := strings.Cut(text, "://"); has {
			return policy.Request{}, usageError("scheme %q is never allowed; write https://HOST/PATH", scheme)
		}
		rest = text
	}
	end := strings.IndexAny(rest, "/?#")
	authority, target := rest, "/"
	if end >= 0 {
		authority, target = rest[:end], rest[end:]
		target, _, _ = strings.Cut(target, "#")
		if !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
	}
	authority = strings.TrimSuffix(authority, ":443")
	host, err := hostname.ParseUser(authority)
	if err != nil {
		return policy.Request{}, &Error{Code: ExitUsage, Err: fmt.Errorf("reading the host of %q: %w", text, err)}
	}
	if _, err := url.ParseRequestURI(target); err != nil {
		return policy.Request{}, usageError("%q has no path that a client could send: %w", text, err)
	}
	return policy.Request{Host: host, Method: method, Target: target}, nil
}
