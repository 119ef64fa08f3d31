package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// Set changes one of Keys in the text of a rootcell.toml and leaves every
// other byte of it as it is. A key that is not there is added below the line
// that shows it in a comment, else at the end of its table. The value is a
// string, bool, int or []string as in the file, and is validated. Setting what
// is already so returns the same text.
func Set(text []byte, path string, value any) ([]byte, error) {
	literal, decoded, err := encode(path, value)
	if err != nil {
		return nil, err
	}
	before, problem := parse("rootcell.toml", text)
	if problem != nil {
		return nil, Problems{*problem}
	}
	var edited string
	if at, present := before.spans[path]; present {
		if reflect.DeepEqual(lookup(before.values, path), decoded) {
			return text, nil
		}
		edited = string(text[:at.value]) + literal + string(text[at.end:])
	} else {
		edited = before.insert(path, literal)
	}
	// Whatever the shape of the file, only this one value may have changed.
	after, problem := parse("rootcell.toml", []byte(edited))
	if problem == nil {
		assign(before.values, path, decoded)
	}
	if problem != nil || !reflect.DeepEqual(before.values, after.values) {
		return nil, fmt.Errorf("setting %s: the file has an unusual shape; write %s = %s into it by hand", path, path, literal)
	}
	return []byte(edited), nil
}

// encode returns a value as TOML text and as the decoder would return it.
func encode(path string, value any) (literal string, decoded any, err error) {
	switch v := value.(type) {
	case string:
		literal, decoded = quote(v), v
	case bool:
		literal, decoded = strconv.FormatBool(v), v
	case int:
		literal, decoded = strconv.Itoa(v), int64(v)
	case []string:
		quoted, array := make([]string, len(v)), make([]any, len(v))
		for i, s := range v {
			quoted[i], array[i] = quote(s), s
		}
		literal, decoded = "["+strings.Join(quoted, ", ")+"]", array
	default:
		return "", nil, fmt.Errorf("setting %s: cannot write a %T", path, value)
	}
	l := newLoader()
	k := l.key(path)
	if k == nil {
		return "", nil, fmt.Errorf("setting %s: %s", path, suggestKey(path))
	}
	if faults := k.set(&l.config, decoded); faults != nil {
		return "", nil, fmt.Errorf("setting %s: %s; %s", path, faults[0].what, faults[0].hint)
	}
	return literal, decoded, nil
}

// quote writes a basic TOML string. Settings have no control characters.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// insert adds a key that the document does not have.
func (d *document) insert(path, literal string) string {
	text := string(d.text)
	newline := "\n"
	if strings.Contains(text, "\r\n") {
		newline = "\r\n"
	}
	table, name := "", path
	if dot := strings.LastIndexByte(path, '.'); dot >= 0 {
		table, name = path[:dot], path[dot+1:]
	}
	line := name + " = " + literal + newline
	from, to, found := d.section(table)
	if !found {
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += newline
		}
		return text + newline + "[" + table + "]" + newline + line
	}
	at := d.lastSetting(from, to)
	shown := regexp.MustCompile(`(?m)^[ \t]*#[ \t]*` + regexp.QuoteMeta(name) + `[ \t]*=.*$`)
	if match := shown.FindStringIndex(text[from:to]); match != nil {
		at = from + match[1]
	}
	// On to the next line, past a comment behind the setting.
	if end := strings.IndexByte(text[at:], '\n'); end >= 0 {
		at += end + 1
	} else if at = len(text); at > 0 {
		line = newline + line
	}
	return text[:at] + line + text[at:]
}

// section is the part of the text that holds the keys of a table, from behind
// its header to the line of the next one.
func (d *document) section(table string) (from, to int, found bool) {
	if table != "" {
		if from, found = d.tables[table]; !found {
			return 0, 0, false
		}
	}
	to = len(d.text)
	for _, header := range d.headers {
		if header > from {
			to = strings.LastIndexByte(string(d.text[:header]), '\n') + 1
			break
		}
	}
	return from, to, true
}

// lastSetting is where the last value between two offsets ends, or the first
// of them.
func (d *document) lastSetting(from, to int) int {
	last := from
	for _, s := range d.spans {
		if s.key >= from && s.end <= to {
			last = max(last, s.end)
		}
	}
	return last
}

func lookup(values map[string]any, path string) any {
	var at any = values
	for part := range strings.SplitSeq(path, ".") {
		table, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = table[part]
	}
	return at
}

func assign(values map[string]any, path string, value any) {
	parts := strings.Split(path, ".")
	for _, part := range parts[:len(parts)-1] {
		inner, ok := values[part].(map[string]any)
		if !ok {
			inner = map[string]any{}
			values[part] = inner
		}
		values = inner
	}
	values[parts[len(parts)-1]] = value
}
