package policytest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

// checker turns what was decoded into a File and collects every problem.
type checker struct {
	path     string
	places   map[string]place
	problems policyfile.Problems
}

func (c *checker) report(key, what, hint string) {
	p := c.places[key]
	for p.line == 0 && strings.Contains(key, ".") {
		// A missing key is reported at the table it is missing from.
		key = key[:strings.LastIndexByte(key, '.')]
		p = c.places[key]
	}
	c.problems = append(c.problems, policyfile.Problem{File: c.path, Line: p.line, Column: p.column, What: what, Hint: hint})
}

func (c *checker) decodeError(err error) {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		for _, e := range unknown.Errors {
			line, column := e.Position()
			c.problems = append(c.problems, policyfile.Problem{File: c.path, Line: line, Column: column,
				What: fmt.Sprintf("unknown key %q", strings.Join(e.Key(), ".")), Hint: "remove it; checks/README.md lists the keys"})
		}
		return
	}
	p := policyfile.Problem{File: c.path, What: err.Error()}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		p.Line, p.Column = bad.Position()
		p.What = strings.TrimPrefix(bad.Error(), "toml: ")
	}
	c.problems = append(c.problems, p)
}

func (c *checker) file(wire wireFile) File {
	f := File{Path: c.path, About: wire.About, HasLists: wire.Policy != nil}
	if wire.Schema != 1 {
		c.report("schema", fmt.Sprintf("schema is %d, and this version reads 1", wire.Schema), "write \"schema = 1\"")
	}
	if wire.Policy != nil {
		f.Lists = c.lists(*wire.Policy)
	}
	if len(wire.Cases) == 0 {
		c.report("case", "the file has no case", "add a [[case]] table")
	}
	names := make(map[string]int)
	for i, w := range wire.Cases {
		key := fmt.Sprintf("case.%d", i)
		testCase := c.testCase(key, w)
		testCase.Line = c.places[key].line
		if first, twice := names[w.Name]; twice && w.Name != "" {
			c.report(key+".name", fmt.Sprintf("the case of line %d has the same name", first), "give each case its own name")
		}
		names[w.Name] = testCase.Line
		f.Cases = append(f.Cases, testCase)
	}
	return f
}

// lists checks that the lists have no errors, except those that are meant to.
func (c *checker) lists(w wireLists) policyfile.Files {
	files := make(policyfile.Files)
	texts := map[policy.Kind]*string{policy.KindDNS: w.DNS, policy.KindHTTPS: w.HTTPS, policy.KindSSH: w.SSH}
	for _, kind := range policy.Kinds() {
		broken := slices.Contains(w.Broken, string(kind))
		text := texts[kind]
		if text == nil {
			if broken {
				c.report("policy.broken", fmt.Sprintf("there is no %s list that could be broken", kind), "")
			}
			continue
		}
		name := policyfile.FileName(kind)
		files[kind] = policyfile.File{Name: name, Text: *text}
		_, problems := policyfile.Parse(kind, name, []byte(*text))
		key := "policy." + string(kind)
		switch errs := problems.Errors(); {
		case broken && len(errs) == 0:
			c.report("policy.broken", fmt.Sprintf("the %s list has no error", kind), "")
		case !broken:
			for _, p := range errs {
				c.report(key, p.String(), "")
			}
		}
	}
	for _, kind := range w.Broken {
		if !slices.Contains(policy.Kinds(), policy.Kind(kind)) {
			c.report("policy.broken", fmt.Sprintf("%q is no kind", kind), "write dns, https or ssh")
		}
	}
	return files
}

func (c *checker) testCase(key string, w wireCase) Case {
	out := Case{Name: w.Name, Kind: policy.Kind(w.Kind), Host: w.Host, URL: w.URL, Method: w.Method, SNI: w.SNI,
		Verdict: Verdict(w.Verdict), Reason: policy.Reason(w.Reason), Rule: w.Rule}
	if w.Name == "" {
		c.report(key+".name", "the case has no name", "say in a sentence what it shows")
	}
	c.subject(key, &out)
	switch {
	case out.Verdict != Allow && out.Verdict != Deny:
		c.report(key+".verdict", fmt.Sprintf("the verdict is %q", w.Verdict), "write \"allow\" or \"deny\"")
	case out.Verdict == Allow && out.Reason != "":
		c.report(key+".reason", "only what is denied has a reason", "remove it")
	case out.Verdict == Deny && out.Reason.Meaning() == "":
		c.report(key+".reason", fmt.Sprintf("%q is no reason", w.Reason), "write a reason code such as \"no-rule\" or \"path-rule\"")
	}
	return out
}

// subject checks what is asked for: a host, or for HTTPS a request.
func (c *checker) subject(key string, out *Case) {
	switch {
	case !slices.Contains(policy.Kinds(), out.Kind):
		c.report(key+".kind", fmt.Sprintf("%q is no kind", out.Kind), "write dns, https or ssh")
		return
	case (out.URL == "") == (out.Host == ""):
		c.report(key, "a case has either a host or a url", "HTTPS requests have a url, all else a host")
	case out.URL != "" && out.Kind != policy.KindHTTPS:
		c.report(key+".url", fmt.Sprintf("a %s case has no url", out.Kind), "write a host")
	case out.URL != "" && !strings.HasPrefix(out.URL, scheme):
		c.report(key+".url", fmt.Sprintf("%q does not begin with %q", out.URL, scheme), "cleartext HTTP is no matter of policy")
	}
	if out.URL == "" {
		for name, value := range map[string]string{"method": out.Method, "sni": out.SNI} {
			if value != "" {
				c.report(key+"."+name, fmt.Sprintf("a case without a url has no %s", name), "remove it")
			}
		}
	} else if out.Method == "" {
		out.Method = "GET"
	}
}
