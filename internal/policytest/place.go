package policytest

import (
	"bytes"
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2/unstable"
)

// place is a position in a file, both from 1, the column in characters.
type place struct{ line, column int }

// locate finds where each key and each table of a document is. After decoding
// no positions are left, so the document is walked a second time; keys are
// "schema", "policy", "policy.https", "case.0", "case.0.url".
func locate(text []byte) map[string]place {
	lines := []int{0}
	for i, c := range text {
		if c == '\n' {
			lines = append(lines, i+1)
		}
	}
	at := func(offset int) place {
		line := sort.SearchInts(lines, offset+1) - 1
		return place{line + 1, utf8.RuneCount(text[lines[line]:offset]) + 1}
	}
	places := make(map[string]place)
	parser := unstable.Parser{}
	parser.Reset(bytes.Clone(text))
	table, cases := "", 0
	for parser.NextExpression() {
		node := parser.Expression()
		key, offset := dotted(node.Key())
		switch node.Kind {
		case unstable.ArrayTable:
			table = fmt.Sprintf("%s.%d", key, cases)
			cases++
			places[table] = at(offset)
		case unstable.Table:
			table = key
			places[table] = at(offset)
		case unstable.KeyValue:
			if table != "" {
				key = table + "." + key
			}
			places[key] = at(offset)
		}
	}
	return places
}

func dotted(it unstable.Iterator) (key string, offset int) {
	var parts []string
	for it.Next() {
		node := it.Node()
		if len(parts) == 0 {
			offset = int(node.Raw.Offset)
		}
		parts = append(parts, string(node.Data))
	}
	return strings.Join(parts, "."), offset
}
