package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/rootcell-ai/rootcell/internal/nearest"
	"github.com/rootcell-ai/rootcell/internal/policyfile"
)

// document is a TOML text whose values are asked for one by one, so that every
// problem of a file is found in one go and has its place. go-toml's decoder stops
// at the first bad value and knows no positions afterwards; this is the one file
// that uses its unstable parser.
type document struct {
	name     string
	text     []byte
	values   map[string]any // by dotted key; tables are not in it
	places   map[string]int // byte offsets by dotted key, of array elements as key[i]
	known    []string       // keys that were asked for
	problems policyfile.Problems
}

// parseDocument reads text. When its syntax is broken the document has that
// problem and no values.
func parseDocument(name string, text []byte) (*document, bool) {
	d := &document{name: name, text: text, values: map[string]any{}, places: map[string]int{}}
	tree := map[string]any{}
	if err := toml.Unmarshal(text, &tree); err != nil {
		problem := policyfile.Problem{File: name, Line: 1, Column: 1, What: strings.TrimPrefix(err.Error(), "toml: "),
			Hint: "mend the TOML syntax there; other problems show afterwards"}
		if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
			problem.Line, problem.Column = decode.Position()
		}
		d.problems = append(d.problems, problem)
		return d, false
	}
	d.flatten("", tree)
	d.locate()
	return d, true
}

func (d *document) flatten(prefix string, table map[string]any) {
	for key, value := range table {
		if inner, ok := value.(map[string]any); ok {
			d.flatten(prefix+key+".", inner)
			continue
		}
		d.values[prefix+key] = value
	}
}

// locate walks the syntax tree for the places of keys.
func (d *document) locate() {
	parser := unstable.Parser{}
	parser.Reset(d.text)
	table := ""
	for parser.NextExpression() {
		node := parser.Expression()
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = d.note("", node.Key()) + "."
		case unstable.KeyValue:
			d.keyValue(table, node)
		}
	}
}

func (d *document) keyValue(prefix string, node *unstable.Node) {
	path := d.note(prefix, node.Key())
	value := node.Value()
	children := value.Children()
	switch value.Kind {
	case unstable.InlineTable:
		for children.Next() {
			d.keyValue(path+".", children.Node())
		}
	case unstable.Array:
		for i := 0; children.Next(); i++ {
			if raw := children.Node().Raw; raw.Length > 0 {
				d.places[fmt.Sprintf("%s[%d]", path, i)] = int(raw.Offset)
			}
		}
	}
}

// note keeps the place of a key and returns its path.
func (d *document) note(prefix string, key unstable.Iterator) string {
	at := -1
	for key.Next() {
		node := key.Node()
		if at < 0 {
			at = int(node.Raw.Offset)
		}
		prefix += string(node.Data) + "."
	}
	path := strings.TrimSuffix(prefix, ".")
	if _, seen := d.places[path]; !seen {
		d.places[path] = at
	}
	return path
}

// bad reports a problem at key; at the first line when the key is not in the text.
func (d *document) bad(key, what, hint string) {
	p := policyfile.Problem{File: d.name, Line: 1, Column: 1, What: key + ": " + what, Hint: hint}
	if at, ok := d.places[key]; ok {
		before := d.text[:at]
		p.Line, p.Column = bytes.Count(before, []byte("\n"))+1, at-bytes.LastIndexByte(before, '\n')
	}
	d.problems = append(d.problems, p)
}

func (d *document) get(key string) (any, bool) {
	d.known = append(d.known, key)
	value, ok := d.values[key]
	return value, ok
}

// text1 returns a string; required ones must be there and not be empty.
func (d *document) text1(key, fallback string, required bool) string {
	value, ok := d.get(key)
	if !ok {
		if required {
			d.bad(key, "it is missing", "add it")
		}
		return fallback
	}
	s, ok := value.(string)
	switch {
	case !ok:
		d.bad(key, fmt.Sprintf("a string is needed, not %v", value), "put it in quotes")
	case s == "" && required:
		d.bad(key, "it is empty", "")
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		d.bad(key, fmt.Sprintf("%q has control characters", s), "")
		return fallback
	}
	return s
}

// texts returns an array of strings, nil when it is not there.
func (d *document) texts(key string) []string {
	value, ok := d.get(key)
	if !ok {
		return nil
	}
	list, ok := value.([]any)
	if !ok {
		d.bad(key, fmt.Sprintf("an array of strings is needed, not %v", value), `write ["…"]`)
		return nil
	}
	out := make([]string, 0, len(list))
	for i, element := range list {
		s, ok := element.(string)
		if !ok {
			d.bad(fmt.Sprintf("%s[%d]", key, i), fmt.Sprintf("a string is needed, not %v", element), "put it in quotes")
		}
		out = append(out, s)
	}
	return out
}

// number returns an integer within bounds.
func (d *document) number(key string, fallback, least, most int64) int64 {
	value, ok := d.get(key)
	if !ok {
		return fallback
	}
	n, ok := value.(int64)
	if !ok || n < least || n > most {
		d.bad(key, fmt.Sprintf("%v is not a whole number from %d to %d", value, least, most), "")
		return fallback
	}
	return n
}

// finish reports keys that nobody asked for and returns all problems in the order
// of the text.
func (d *document) finish() policyfile.Problems {
	for _, key := range slices.Sorted(maps.Keys(d.values)) {
		if slices.Contains(d.known, key) {
			continue
		}
		hint := "remove it"
		if near, ok := nearest.To(key, d.known); ok {
			hint = fmt.Sprintf("perhaps %q is meant", near)
		}
		d.bad(key, "unknown key", hint)
	}
	slices.SortStableFunc(d.problems, func(a, b policyfile.Problem) int {
		return cmpPlace(a, b)
	})
	return d.problems
}

func cmpPlace(a, b policyfile.Problem) int {
	if a.Line != b.Line {
		return a.Line - b.Line
	}
	return a.Column - b.Column
}
