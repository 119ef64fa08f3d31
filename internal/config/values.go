package config

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

type (
	addr     = netip.Addr
	duration = time.Duration
)

// field makes a key for a value that is one TOML scalar.
func field[T any](path string, at func(*Config) *T, parse func(any) (T, *fault), show func(T) any) key {
	return key{
		path: path,
		env:  variable(path),
		set: func(c *Config, v any) []indexed {
			value, f := parse(v)
			if f != nil {
				return []indexed{{-1, *f}}
			}
			*at(c) = value
			return nil
		},
		get: func(c *Config) any { return show(*at(c)) },
	}
}

// elements makes a key for an array of strings. The whole value is kept out
// when one element is bad.
func elements[T any](path string, at func(*Config) *[]T, parse func(string) (T, *fault), show func(T) string) key {
	return key{
		path: path,
		env:  variable(path),
		list: true,
		set: func(c *Config, v any) []indexed {
			array, ok := v.([]any)
			if !ok {
				return []indexed{{-1, *wrongType(v, `an array of strings, e.g. ["a", "b"]`)}}
			}
			var faults []indexed
			values := make([]T, 0, len(array))
			for i, item := range array {
				text, f := asString(item)
				var value T
				if f == nil {
					value, f = parse(text)
				}
				if f != nil {
					faults = append(faults, indexed{i, *f})
					continue
				}
				values = append(values, value)
			}
			if faults == nil {
				*at(c) = values
			}
			return faults
		},
		get: func(c *Config) any {
			texts := []string{}
			for _, value := range *at(c) {
				texts = append(texts, show(value))
			}
			return texts
		},
	}
}

func word(path string, at func(*Config) *string, check func(string) *fault) key {
	return field(path, at, func(v any) (string, *fault) {
		text, f := asString(v)
		if f == nil {
			f = check(text)
		}
		return text, f
	}, func(s string) any { return s })
}

func words(path string, at func(*Config) *[]string, check func(string) *fault) key {
	return elements(path, at, func(s string) (string, *fault) { return s, check(s) }, func(s string) string { return s })
}

func number(path string, at func(*Config) *int, low, high int) key {
	return field(path, at, func(v any) (int, *fault) {
		n, ok := v.(int64)
		if text, isText := v.(string); isText {
			// Environment and flags have nothing but text.
			parsed, err := strconv.ParseInt(text, 10, 64)
			n, ok = parsed, err == nil
		}
		if !ok {
			return 0, wrongType(v, "a whole number")
		}
		if n < int64(low) || n > int64(high) {
			return 0, faultf(fmt.Sprintf("write a number from %d to %d", low, high), "%s is %d", path, n)
		}
		return int(n), nil
	}, func(n int) any { return n })
}

func flag(path string, at func(*Config) *bool) key {
	return field(path, at, func(v any) (bool, *fault) {
		switch v {
		case true, "true":
			return true, nil
		case false, "false":
			return false, nil
		}
		return false, wrongType(v, "true or false")
	}, func(b bool) any { return b })
}

func size(path string, at func(*Config) *int64, low, step int64) key {
	return field(path, at, func(v any) (int64, *fault) {
		n, f := parseSize(v)
		switch {
		case f != nil:
			return 0, f
		case n < low:
			return 0, faultf(fmt.Sprintf("write at least %q", FormatSize(low)), "%s is %s", path, FormatSize(n))
		case n%step != 0:
			return 0, faultf(fmt.Sprintf("write a multiple of %q", FormatSize(step)), "%s is %d bytes", path, n)
		}
		return n, nil
	}, func(n int64) any { return FormatSize(n) })
}

func period(path string, at func(*Config) *duration) key {
	return field(path, at, parseDuration, func(d duration) any { return formatDuration(d) })
}

var units = []struct {
	name  string
	bytes int64
}{{"TiB", gib * 1024}, {"GiB", gib}, {"MiB", mib}, {"KiB", kib}, {"B", 1}}

// parseSize reads "4GiB" or a whole number of bytes.
func parseSize(v any) (int64, *fault) {
	const form = `a size such as "4GiB" or "512MiB"`
	if n, ok := v.(int64); ok {
		if n < 0 {
			return 0, faultf("write "+form, "the size %d is negative", n)
		}
		return n, nil
	}
	text, ok := v.(string)
	if !ok {
		return 0, wrongType(v, form)
	}
	digits := strings.TrimRight(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
	unit := text[len(digits):]
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || n < 0 {
		return 0, faultf("write "+form, "%q is no size", text)
	}
	if unit == "" {
		return n, nil
	}
	for _, u := range units {
		if u.name != unit {
			continue
		}
		if n > math.MaxInt64/u.bytes {
			return 0, faultf("write "+form, "the size %q is too large", text)
		}
		return n * u.bytes, nil
	}
	return 0, faultf("units are B, KiB, MiB, GiB and TiB", "%q has the unknown unit %q", text, unit)
}

// FormatSize writes a number of bytes in the largest unit that keeps it whole,
// as rootcell.toml does: "4GiB".
func FormatSize(bytes int64) string {
	for _, u := range units {
		if bytes != 0 && bytes%u.bytes == 0 {
			return fmt.Sprintf("%d%s", bytes/u.bytes, u.name)
		}
	}
	return fmt.Sprintf("%dB", bytes)
}

const day = 24 * time.Hour

// parseDuration reads a Go duration or a number of days: "7d", "36h".
func parseDuration(v any) (duration, *fault) {
	const form = `a duration such as "7d" or "36h"`
	text, ok := v.(string)
	if !ok {
		return 0, wrongType(v, form)
	}
	if days, isDays := strings.CutSuffix(text, "d"); isDays {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			return duration(n) * day, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d, nil
	}
	return 0, faultf("write "+form, "%q is no duration", text)
}

func formatDuration(d duration) string {
	if d > 0 && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

func asString(v any) (string, *fault) {
	text, ok := v.(string)
	if !ok {
		return "", wrongType(v, "a string")
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		return "", faultf("remove it", "%q has a control character", text)
	}
	return text, nil
}

func wrongType(v any, want string) *fault {
	var got string
	switch v := v.(type) {
	case string:
		got = fmt.Sprintf("the string %q", v)
	case int64:
		got = fmt.Sprintf("the number %d", v)
	case float64:
		got = fmt.Sprintf("the number %v", v)
	case bool:
		got = fmt.Sprintf("%v", v)
	case []any:
		got = "an array"
	case map[string]any:
		got = "a table"
	default:
		got = "a date or time"
	}
	return faultf("write "+want, "this is %s", got)
}

func oneOf(allowed ...string) func(string) *fault {
	return func(s string) *fault {
		if slices.Contains(allowed, s) {
			return nil
		}
		return faultf("write "+choice(allowed), "%q is not known here", s)
	}
}

// choice is `"a", "b" or "c"`.
func choice(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	if len(quoted) == 1 {
		return quoted[0]
	}
	last := len(quoted) - 1
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}
