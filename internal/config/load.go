package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/rootcell-ai/rootcell/internal/nearest"
)

// Source is a layer of configuration.
type Source string

// The layers, from weak to strong.
const (
	BuiltIn     Source = "built-in"
	Project     Source = "project"
	Instance    Source = "instance"
	Environment Source = "environment"
	Flag        Source = "flag"
)

// Origin says where a value came from.
type Origin struct {
	Source Source `json:"source"`
	Name   string `json:"name,omitempty"` // file path, variable or flag
	Line   int    `json:"line,omitempty"` // from 1, in files only
	Column int    `json:"column,omitempty"`
}

// Override is the value that a command-line flag gives to a setting.
type Override struct {
	Flag  string // as the user wrote it, e.g. "--memory"
	Key   string // one of Keys
	Value string // as in the environment: lists are comma-separated
}

// Sources are the places that Load reads.
type Sources struct {
	Project   string     // path of the project's rootcell.toml; "" for none
	Instance  string     // path of the instance's rootcell.toml; "" for none
	Environ   []string   // as os.Environ returns it; nil for none
	Overrides []Override // later ones win
}

// Setting is one value with its origin, as `status --json` shows it.
type Setting struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Origin Origin `json:"origin"`
}

// Load reads every layer. A file that does not exist counts as empty. When
// anything is wrong the error is Problems with all of it, and the Config holds
// the lower layer's value for each setting that is in error, so that commands
// that need no setting (list, stop, remove) can still work.
func Load(sources Sources) (Config, error) {
	l := newLoader()
	l.file(Project, sources.Project)
	l.file(Instance, sources.Instance)
	l.environment(sources.Environ)
	l.overrides(sources.Overrides)
	l.relations()
	return l.result()
}

// Check validates the text of one file by itself, as after an edit. The error
// is nil or Problems.
func Check(name string, text []byte) error {
	l := newLoader()
	l.text(Instance, name, text)
	l.relations()
	_, err := l.result()
	return err
}

// Settings lists every setting with its origin, then the names of secrets and
// secret providers. References of secrets are left out.
func (c Config) Settings() []Setting {
	var settings []Setting
	add := func(path string, value any) {
		settings = append(settings, Setting{Key: path, Value: value, Origin: c.Origin(path)})
	}
	for _, k := range keys() {
		add(k.path, k.get(&c))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Secrets)) {
		add(join("secrets", name), c.Secrets[name].Provider)
	}
	for _, id := range slices.Sorted(maps.Keys(c.SecretProviders)) {
		add(join("secret_providers", id), c.SecretProviders[id].Kind)
	}
	return settings
}

// Origin says where the setting with this dotted name came from.
func (c Config) Origin(path string) Origin {
	if origin, ok := c.origins[path]; ok {
		return origin
	}
	return Origin{Source: BuiltIn}
}

type loader struct {
	config   Config
	keys     []key
	problems Problems
}

func newLoader() *loader {
	l := &loader{config: Default(), keys: keys()}
	l.config.Secrets = map[string]Secret{}
	l.config.SecretProviders = map[string]SecretProvider{}
	l.config.origins = map[string]Origin{}
	return l
}

func (l *loader) result() (Config, error) {
	if len(l.problems) == 0 {
		return l.config, nil
	}
	return l.config, l.problems.sorted()
}

func (l *loader) file(source Source, path string) {
	if path == "" {
		return
	}
	text, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		l.problems = append(l.problems, Problem{File: path, What: err.Error(), Hint: "make it a readable file"})
	default:
		l.text(source, path, text)
	}
}

// readFile reads a regular file of bounded size without blocking on a pipe.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("this is no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFileBytes+1))
}

func (l *loader) text(source Source, name string, text []byte) {
	doc, problem := parse(name, text)
	if problem != nil {
		l.problems = append(l.problems, *problem)
		return
	}
	l.schema(doc)
	l.table(source, doc, "", doc.values)
}

func (l *loader) schema(doc *document) {
	hint := fmt.Sprintf("write schema = %d as the first line", Schema)
	value, present := doc.values["schema"]
	switch {
	case !present:
		l.problems = append(l.problems, doc.problem(0, faultf(hint, "the key schema is missing")))
	case value != int64(Schema):
		l.problems = append(l.problems, doc.problem(doc.spans["schema"].value, faultf(hint+", or use a rootcell that knows it", "schema %v is not known", value)))
	}
}

// table reads one table of settings and the tables in it.
func (l *loader) table(source Source, doc *document, prefix string, table map[string]any) {
	report := func(path string, f *fault) {
		l.problems = append(l.problems, doc.problem(doc.spans[path].value, f))
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		path, value := join(prefix, name), table[name]
		switch k := l.key(path); {
		case path == "schema":
		case path == "secrets":
			found := map[string]Secret{}
			readSecrets(value, found, report)
			for name, secret := range found {
				l.config.Secrets[name] = secret
				l.originate(source, doc, join(path, name))
			}
		case path == "secret_providers":
			found := map[string]SecretProvider{}
			readProviders(value, found, report)
			for id, provider := range found {
				l.config.SecretProviders[id] = provider
				l.originate(source, doc, join(path, id))
			}
		case k != nil:
			faults := k.set(&l.config, value)
			for _, f := range faults {
				at := path
				if f.index >= 0 {
					at = fmt.Sprintf("%s[%d]", path, f.index)
				}
				report(at, &f.fault)
			}
			if faults == nil {
				l.originate(source, doc, path)
			}
		case l.isSection(path):
			if inner, ok := asTable(value, path, report); ok {
				l.table(source, doc, path, inner)
			}
		default:
			l.problems = append(l.problems, doc.problem(doc.spans[path].key, unknownKey(path, l.siblings(prefix))))
		}
	}
}

func (l *loader) originate(source Source, doc *document, path string) {
	line, column := doc.position(doc.spans[path].value)
	l.config.origins[path] = Origin{Source: source, Name: doc.name, Line: line, Column: column}
}

func (l *loader) key(path string) *key {
	for i := range l.keys {
		if l.keys[i].path == path {
			return &l.keys[i]
		}
	}
	return nil
}

func (l *loader) isSection(path string) bool {
	return slices.ContainsFunc(l.keys, func(k key) bool { return strings.HasPrefix(k.path, path+".") })
}

// siblings are the names that a table may hold.
func (l *loader) siblings(prefix string) []string {
	var names []string
	if prefix == "" {
		names = []string{"schema", "secrets", "secret_providers"}
	}
	for _, k := range l.keys {
		rest := k.path
		if prefix != "" {
			var inside bool
			if rest, inside = strings.CutPrefix(k.path, prefix+"."); !inside {
				continue
			}
		}
		name, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// unknown reports the names in table that are not allowed there.
func unknown(path string, table map[string]any, report report, allowed ...string) bool {
	found := false
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if !slices.Contains(allowed, name) {
			report(join(path, name), unknownKey(join(path, name), allowed))
			found = true
		}
	}
	return found
}

func unknownKey(path string, known []string) *fault {
	name := path[strings.LastIndexByte(path, '.')+1:]
	hint := "known here: " + strings.Join(known, ", ")
	if suggestion, ok := nearest.To(name, known); ok {
		hint = fmt.Sprintf("did you mean %q?", suggestion)
	}
	return faultf(hint, "the key %q is unknown", path)
}

// suggestKey is the hint for a dotted name that is none of Keys.
func suggestKey(path string) string {
	if suggestion, ok := nearest.To(path, Keys()); ok {
		return fmt.Sprintf("did you mean %q?", suggestion)
	}
	return "rootcell.toml of the project shows them all"
}

func (l *loader) environment(environ []string) {
	variables := map[string]string{}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			variables[name] = value
		}
	}
	for _, k := range l.keys {
		// As usual in shells, an empty variable is as good as an unset one.
		if text := variables[k.env]; text != "" {
			l.override(k, text, Origin{Source: Environment, Name: k.env})
		}
	}
}

func (l *loader) overrides(overrides []Override) {
	for _, o := range overrides {
		if k := l.key(o.Key); k != nil {
			l.override(*k, o.Value, Origin{Source: Flag, Name: o.Flag})
			continue
		}
		l.problems = append(l.problems, Problem{File: o.Flag, What: fmt.Sprintf("the key %q is unknown", o.Key), Hint: suggestKey(o.Key)})
	}
}

func (l *loader) override(k key, text string, origin Origin) {
	value := any(text)
	if k.list {
		array := []any{}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				array = append(array, item)
			}
		}
		value = array
	}
	faults := k.set(&l.config, value)
	for _, f := range faults {
		l.problems = append(l.problems, Problem{File: origin.Name, What: f.what, Hint: f.hint})
	}
	if faults == nil {
		l.config.origins[k.path] = origin
	}
}
