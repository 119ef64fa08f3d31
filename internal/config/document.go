package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// This is the one file that uses go-toml's unstable parser: the decoder stops
// at the first bad value and knows no position afterwards, so values are
// decoded untyped and their places in the text taken from a walk of the
// syntax tree.

// span is the place of one key and its value in a document, as byte offsets.
type span struct {
	key, value, end int
}

// document is one parsed file.
type document struct {
	name   string
	text   []byte
	values map[string]any
	spans  map[string]span // by dotted path; arrays have path[i] too
	tables map[string]int  // offset of the name in the header of each [table]
	// headers are the offsets of all of them and of [[arrays]], in order.
	headers []int
}

// maxFileBytes bounds a configuration file; real ones have a few KiB.
const maxFileBytes = 1 << 20

// parse reads a TOML text. A nil document means that its syntax is broken.
func parse(name string, text []byte) (*document, *Problem) {
	if len(text) > maxFileBytes {
		return nil, &Problem{File: name, What: fmt.Sprintf("the file has %d bytes", len(text)), Hint: fmt.Sprintf("rootcell.toml may have %d", maxFileBytes)}
	}
	doc := &document{name: name, text: text, values: map[string]any{}, spans: map[string]span{}, tables: map[string]int{}}
	if err := toml.Unmarshal(text, &doc.values); err != nil {
		problem := Problem{File: name, Line: 1, Column: 1, What: strings.TrimPrefix(err.Error(), "toml: ")}
		var decode *toml.DecodeError
		if errors.As(err, &decode) {
			problem.Line, problem.Column = decode.Position()
		}
		problem.Hint = "mend the TOML syntax there; other problems show afterwards"
		return nil, &problem
	}
	parser := unstable.Parser{}
	parser.Reset(text)
	var table string
	for parser.NextExpression() {
		node := parser.Expression()
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			path, first, _ := dotted(node.Key())
			table = path
			doc.note(path, span{key: first, value: first, end: first})
			doc.headers = append(doc.headers, first)
			if node.Kind == unstable.Table {
				doc.tables[path] = first
			}
		case unstable.KeyValue:
			doc.keyValue(table, node)
		}
	}
	return doc, nil
}

func (d *document) keyValue(table string, node *unstable.Node) {
	path, first, last := dotted(node.Key())
	end := int(node.Raw.Offset + node.Raw.Length)
	value := last + bytes.IndexByte(d.text[last:end], '=') + 1
	for value < end && (d.text[value] == ' ' || d.text[value] == '\t') {
		value++
	}
	full := join(table, path)
	d.note(full, span{key: first, value: value, end: end})
	d.nested(full, node.Value(), value)
}

// nested records what lies in arrays and inline tables. Array nodes have no
// place of their own, so an array in an array takes that of the outer one.
func (d *document) nested(path string, node *unstable.Node, at int) {
	children := node.Children()
	switch node.Kind {
	case unstable.InlineTable:
		for children.Next() {
			d.keyValue(path, children.Node())
		}
	case unstable.Array:
		for i := 0; children.Next(); i++ {
			child := children.Node()
			element := fmt.Sprintf("%s[%d]", path, i)
			if child.Raw.Length > 0 {
				at = int(child.Raw.Offset)
			}
			d.note(element, span{key: at, value: at, end: at})
			d.nested(element, child, at)
		}
	}
}

// note keeps the first place of a path and of every table it implies.
func (d *document) note(path string, s span) {
	if _, seen := d.spans[path]; seen {
		return
	}
	d.spans[path] = s
	for parent := path; ; {
		dot := strings.LastIndexByte(parent, '.')
		if dot < 0 {
			return
		}
		parent = parent[:dot]
		if _, seen := d.spans[parent]; !seen {
			d.spans[parent] = span{key: s.key, value: s.key, end: s.key}
		}
	}
}

func (d *document) problem(offset int, f *fault) Problem {
	line, column := d.position(offset)
	return Problem{File: d.name, Line: line, Column: column, What: f.what, Hint: f.hint}
}

func (d *document) position(offset int) (line, column int) {
	before := d.text[:offset]
	return bytes.Count(before, []byte("\n")) + 1, offset - bytes.LastIndexByte(before, '\n')
}

// dotted returns the path of a key, and where its first part begins and its
// last part ends.
func dotted(key unstable.Iterator) (path string, first, last int) {
	first = -1
	for key.Next() {
		node := key.Node()
		if first < 0 {
			first = int(node.Raw.Offset)
		}
		last = int(node.Raw.Offset + node.Raw.Length)
		path = join(path, string(node.Data))
	}
	return path, first, last
}

func join(table, key string) string {
	if table == "" {
		return key
	}
	return table + "." + key
}
