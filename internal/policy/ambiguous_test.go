package policy

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestAmbiguousTarget(t *testing.T) {
	ambiguous := []string{
		// dot segments, plain and encoded
		"/public/../secret", "/public/./x", "/..", "/.", "/public/..", "/public/.", "/../x",
		"/public/%2e%2e/secret", "/public/%2E%2E/secret", "/public/.%2e/secret", "/public/%2e/x", "/public/.%2E",
		// empty segments
		"//secret", "/public//secret", "/public//", "//",
		// path parameters
		"/public/..;/secret", "/public;x/../secret", "/secret;/public", "/public/x;v=1", "/public/%3b", "/x%3Bv",
		// encoded separators and controls
		"/public%2f..%2fsecret", "/public%2Fsecret", "/public%5csecret", "/public%5Csecret", `/public\secret`, `/public/..\secret`,
		"/public%00", "/public%0a", "/public%0d%0a", "/public%7f", "/public%1f", "/public%3fx", "/public%3Fx", "/public%23x",
		// second encodings and foreign ones
		"/public/%252e%252e/secret", "/public%252fsecret", "/public%255csecret", "/public%25%32%66", "/%25u002e", "/%u002e%u002e/secret",
		"/%u2215", "/100%", "/%", "/%2", "/%zz", "/%2x/", "/%-1",
		// encodings that need not be
		"/%73ecret", "/se%63ret", "/%41", "/%31", "/%7Euser", "/%2D", "/%5F",
		// not UTF-8, over-long, and compatibility forms
		"/%c0%ae%c0%ae/secret", "/%c0%af", "/%e0%80%af", "/%f0%80%80%af", "/%ff", "/%c3", "/%c3x", "/%c3/%bc", "/%ed%a0%80",
		"/%ef%bc%8f", "/%ef%bc%8e%ef%bc%8e/", "/%e2%80%a5/", "/%e2%80%a6", "/%ef%bc%bc", "/%e2%84%80", "/a%ef%bc%9bb",
		// bytes that do not belong
		"/secret#/public/", "/public x", "/public\tx", "/public\nx", "/public\x00", "/public\x7f", "/ü", "/\xff", "/\xc0\xaf",
		// not in origin-form
		"", "public", "https://ok.example/", "?x", "ok.example:443",
	}
	clear := []string{
		"/", "/public/", "/public/x", "/public/x?y", "/a.b/c..d/...", "/.well-known/x", "/..x/x..", "/x/.git/", "/a/b/",
		"/x%20y", "/%3A%40%21", "/model/anthropic.claude%3A0/converse", "/100%25", "/100%25/x", "/100%25zz",
		"/b%C3%BCcher", "/%e6%97%a5%e6%9c%ac", "/x:y@z", "/a+b,c=d&e$f!g*h'(i)", "/~user", "/%22%3c%3e%5e%60%7b%7c%7d", "*",
		"/x?..//%2f%00%5c;%252e\\%zz", "/x?a=/../b", "/?//", "/x?a=https%3A%2F%2Fy",
	}
	for _, target := range ambiguous {
		if !AmbiguousTarget(target) {
			t.Errorf("%+q is not ambiguous", target)
		}
	}
	for _, target := range clear {
		if AmbiguousTarget(target) {
			t.Errorf("%+q is ambiguous", target)
		}
	}
}

// readings are what servers do to a path before they act on it. None of them
// may turn a clear path into one with other segments.
var readings = map[string]func(string) string{
	"decodes and resolves": func(p string) string { return keepSlash(decode(p), path.Clean(decode(p))) },
	"decodes twice":        func(p string) string { return decode(decode(p)) },
	"resolves, then decodes": func(p string) string {
		return decode(keepSlash(p, path.Clean(p)))
	},
	"takes backslashes as slashes": func(p string) string { return strings.ReplaceAll(decode(p), `\`, "/") },
	"strips path parameters": func(p string) string {
		segments := strings.Split(decode(p), "/")
		for i, s := range segments {
			segments[i], _, _ = strings.Cut(s, ";")
		}
		return strings.Join(segments, "/")
	},
	"ends at a NUL":              func(p string) string { s, _, _ := strings.Cut(decode(p), "\x00"); return s },
	"ends at a decoded question": func(p string) string { s, _, _ := strings.Cut(decode(p), "?"); return s },
	"ends at a decoded fragment": func(p string) string { s, _, _ := strings.Cut(decode(p), "#"); return s },
	"ends at a line break":       func(p string) string { s, _, _ := strings.Cut(decode(p), "\n"); return s },
}

func decode(p string) string {
	s, err := url.PathUnescape(p)
	if err != nil {
		return p
	}
	return s
}

func keepSlash(from, to string) string {
	if strings.HasSuffix(from, "/") && !strings.HasSuffix(to, "/") {
		return to + "/"
	}
	return to
}

// A path with nothing but encoded slashes has two readings and no more: every
// server reads one or the other.
func FuzzOnlyEncodedSlashes(f *testing.F) {
	for _, s := range []string{"/a%2fb", "/a%2F..%2fb", "/%2f", "/a%252fb", "/a%%2f2fb", "/a%25%2f2f", "/@a%2Fb?c=//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		if !onlyEncodedSlashes(target) {
			return
		}
		p, _, _ := strings.Cut(target, "?")
		want := decode(p)
		for name, read := range readings {
			if got := read(p); got != want {
				t.Errorf("%+q has only encoded slashes, but a server that %s reads %+q instead of %+q", target, name, got, want)
			}
		}
		if !AmbiguousTarget(target) {
			t.Errorf("%+q has encoded slashes and is clear", target)
		}
	})
}

func FuzzAmbiguousTarget(f *testing.F) {
	for _, s := range []string{"/a/b", "/a%20b?x", "/%2e", "/a;b", "//", "/%25", "/%c3%bc", "/a/../b", `/\`, "/100%25"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		if AmbiguousTarget(target) || target == "*" {
			return
		}
		p, _, _ := strings.Cut(target, "?")
		want := decode(p)
		for name, read := range readings {
			if got := read(p); got != want {
				t.Errorf("%+q is clear, but a server that %s reads %+q instead of %+q", target, name, got, want)
			}
		}
		if strings.Count(want, "/") != strings.Count(p, "/") {
			t.Errorf("%+q is clear, but decoding changes its segments", target)
		}
	})
}
