package cell

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rootcell-ai/rootcell/internal/control"
	"github.com/rootcell-ai/rootcell/internal/policy"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
	"github.com/rootcell-ai/rootcell/internal/provider"
)

// AllowOptions say what to allow before the lists are pushed.
type AllowOptions struct {
	Hosts []string
	Kinds []policy.Kind // none means DNS and HTTPS
	Path  string        // regex for HTTPS; "" allows every request
	For   time.Duration // 0 writes to the lists; else the firewall forgets after that time
}

// AllowResult is what changed.
type AllowResult struct {
	// Added are the lines that were written to the lists, by file name.
	Added map[string][]string `json:"added"`
	// Granted are the rules that end by themselves.
	Granted []control.Grant `json:"granted"`
	// Reload is what the firewall answered: the changes in force.
	Reload control.ReloadResult `json:"reload"`
}

// Allow pushes the live allowlists to the running firewall, after adding what
// the options say. Where a list has an error nothing is changed, neither on
// the host nor in the firewall.
func (c *Cell) Allow(ctx context.Context, o AllowOptions) (AllowResult, error) {
	result := AllowResult{Added: map[string][]string{}, Granted: []control.Grant{}}
	if len(o.Hosts) == 0 && (len(o.Kinds) > 0 || o.Path != "" || o.For != 0) {
		return result, usageError("--dns, --https, --ssh, --path and --for are about hosts to add; name at least one host")
	}
	if len(o.Kinds) == 0 {
		o.Kinds = []policy.Kind{policy.KindDNS, policy.KindHTTPS}
	}
	lock, err := c.lockExisting(ctx)
	if err != nil {
		return result, err
	}
	defer lock.Release()
	if err := makeDir(c.path("proxy")); err != nil {
		return result, err
	}
	if err := c.seedLists(); err != nil {
		return result, err
	}
	before, err := c.lists()
	if err != nil {
		return result, err
	}
	if _, problems := checkLists(before); problems.Err() != nil {
		return result, c.listError(problems)
	}
	after := before
	if o.For == 0 {
		if after, err = addHosts(before, o, result.Added); err != nil {
			return result, err
		}
	} else if err := checkGrants(o); err != nil {
		return result, err
	}
	// What is written to the lists holds even where no firewall runs.
	for name, text := range after {
		if text != before[name] {
			if err := writeFile(c.path("proxy", name), []byte(text), 0o600); err != nil {
				return result, err
			}
		}
	}
	l, err := c.attach(ctx, provider.RoleFirewall)
	if err != nil {
		if len(result.Added) > 0 {
			err = fmt.Errorf("the lists are changed and take effect at the next start: %w", err)
		}
		return result, err
	}
	defer l.Close()
	if result.Reload, err = l.push(ctx, after); err != nil {
		return result, err
	}
	if o.For != 0 {
		return c.grant(ctx, l, o, result)
	}
	return result, nil
}

// addHosts is the lists with the hosts of o in them; added gets the new lines.
func addHosts(lists map[string]string, o AllowOptions, added map[string][]string) (map[string]string, error) {
	after := map[string]string{}
	for name, text := range lists {
		after[name] = text
	}
	for _, host := range o.Hosts {
		for _, kind := range o.Kinds {
			name := policyfile.FileName(kind)
			text, changed, err := policyfile.Add(kind, after[name], hostFor(kind, host), pathFor(kind, o.Path))
			if err != nil {
				return nil, &Error{Code: ExitUsage, Err: err}
			}
			if changed {
				after[name] = text
				added[name] = append(added[name], ruleLine(kind, hostFor(kind, host), o.Path))
			}
		}
	}
	return after, nil
}

// hostFor is what names a host in the list of a kind. The DNS list knows suffixes, not globs: for `*.example.com` it
// takes `example.com`, which covers the same names.
func hostFor(kind policy.Kind, host string) string {
	if kind != policy.KindDNS || !strings.Contains(host, "*") {
		return host
	}
	if glob, err := policy.ParseGlob(host); err == nil && glob.Tail() != "" {
		return glob.Tail()
	}
	return host
}

func pathFor(kind policy.Kind, path string) string {
	if kind == policy.KindHTTPS {
		return path
	}
	return ""
}

func ruleLine(kind policy.Kind, host, path string) string {
	if path = pathFor(kind, path); path != "" {
		return host + " " + path
	}
	return host
}

// checkGrants reports what is wrong with rules that are to end by themselves.
func checkGrants(o AllowOptions) error {
	if o.For < control.MinGrant || o.For > control.MaxGrant {
		return usageError("--for %v is out of range; give a time from %v to %v, such as 30m", o.For, control.MinGrant, control.MaxGrant)
	}
	for _, host := range o.Hosts {
		for _, kind := range o.Kinds {
			// An empty list shows what is wrong with the rule itself.
			if _, _, err := policyfile.Add(kind, "", hostFor(kind, host), pathFor(kind, o.Path)); err != nil {
				return &Error{Code: ExitUsage, Err: err}
			}
		}
	}
	return nil
}

func (c *Cell) grant(ctx context.Context, l *link, o AllowOptions, result AllowResult) (AllowResult, error) {
	for _, host := range o.Hosts {
		for _, kind := range o.Kinds {
			line := ruleLine(kind, hostFor(kind, host), o.Path)
			var reload control.ReloadResult
			if err := l.ask(ctx, nil, &reload, "ctl", "grant", "--kind", string(kind), "--for", o.For.String(), line); err != nil {
				return result, err
			}
			result.Granted = append(result.Granted, control.Grant{Kind: string(kind), Line: line, Expires: time.Now().Add(o.For).UTC().Truncate(time.Second)})
			result.Reload = merged(result.Reload, reload)
		}
	}
	return result, nil
}

// merged is the sum of two reloads, of which b came later.
func merged(a, b control.ReloadResult) control.ReloadResult {
	if a.Changed == nil {
		a.Changed = map[string]control.Change{}
	}
	for kind, change := range b.Changed {
		sum := a.Changed[kind]
		sum.Added = append(sum.Added, change.Added...)
		sum.Removed = append(sum.Removed, change.Removed...)
		a.Changed[kind] = sum
	}
	a.Generation = b.Generation
	a.Revoked += b.Revoked
	a.Problems = append(a.Problems, b.Problems...)
	return a
}

// listError is the errors of the lists, with paths that an editor can open.
func (c *Cell) listError(problems policyfile.Problems) error {
	errs := problems.Errors()
	located := make(policyfile.Problems, len(errs))
	for i, p := range errs {
		p.File = c.path("proxy", p.File)
		located[i] = p
	}
	return &Error{Code: ExitUsage, Err: errors.Join(located, fmt.Errorf("nothing was pushed and the running policy stays; mend the lists with %s, then run %s", c.Hint("edit https"), c.Hint("allow")))}
}
