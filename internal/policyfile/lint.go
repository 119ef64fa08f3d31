package policyfile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

// lintHost warns about patterns that let strangers in.
func (l *list) lintHost(line, column int, host policy.Pattern) {
	text := host.String()
	tail := host.Tail()
	switch {
	case l.kind == policy.KindDNS && text == "*":
		l.warn(line, column, "\"*\" forwards every name, and data can leave in names", "list the suffixes you need")
	case text == "**":
		l.warn(line, column, "\"**\" matches every host", "list the hosts you need")
	case l.kind != policy.KindDNS && tail == text:
	case policy.IsUserContent(tail):
		l.warn(line, column, fmt.Sprintf("%q lets data out to strangers: anybody gets a name below %q", text, tail),
			"write the names you need")
	case policy.IsPublicSuffix(tail):
		l.warn(line, column, fmt.Sprintf("%q matches names of strangers: anybody can register below %q", text, tail),
			"write the domains you need")
	}
}

// lintScripts warns about a label that mixes alphabets with letters that look
// alike, the way in which a false name passes for a known one.
func (l *list) lintScripts(line, column int, written string, host policy.Pattern) {
	if !strings.ContainsFunc(written, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return
	}
	for label := range strings.SplitSeq(written, ".") {
		var alphabets []string
		for name, table := range map[string]*unicode.RangeTable{"Latin": unicode.Latin, "Greek": unicode.Greek, "Cyrillic": unicode.Cyrillic} {
			if strings.ContainsFunc(label, func(r rune) bool { return unicode.Is(table, r) }) {
				alphabets = append(alphabets, name)
			}
		}
		if len(alphabets) > 1 {
			slices.Sort(alphabets)
			l.warn(line, column, fmt.Sprintf("%s, which is %q, mixes letters that are %s", quote(label), host, strings.Join(alphabets, " and ")),
				"retype it, or write the \"xn--\" form if it is meant")
			return
		}
	}
}

// lintOverlap warns about lines that give nothing because of another line.
func (l *list) lintOverlap() {
	p := policy.New(policy.Rules{l.kind: l.rules()})
	first := make(map[string]ruleLine, len(l.lines))
	for _, line := range l.lines {
		text := line.String()
		if earlier, dup := first[text]; dup {
			l.warn(line.number, line.column, fmt.Sprintf("%s repeats line %d", quote(text), earlier.number), "remove one of them")
			continue
		}
		first[text] = line
		name, err := hostname.Parse(line.Host.String())
		if err != nil || line.Path != nil {
			continue
		}
		l.lintCovered(p, line, name)
	}
	l.problems.sort()
}

func (l *list) lintCovered(p *policy.Policy, line ruleLine, name hostname.Name) {
	covering := ""
	for _, other := range p.Matching(l.kind, name) {
		switch {
		case other.Path != nil:
			l.warn(line.number, line.column, fmt.Sprintf("%q gives nothing: the path rule %s applies to it", name, other.Where),
				"remove this line, or give it a regex")
			return
		case other.Host != line.Host && covering == "":
			covering = other.Where
		}
	}
	if covering != "" {
		l.warn(line.number, line.column, fmt.Sprintf("%q is covered by %s already", name, covering), "remove this line")
	}
}

var registeredMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "QUERY",
	"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "MERGE", "MKACTIVITY", "CHECKOUT"}

// lintPath looks at what a valid regex can match. It reports an error, and
// returns false, when a request can never match; the rest are warnings.
func (l *list) lintPath(line, column int, source string) bool {
	for _, start := range policy.PathStarts(source) {
		method, target, cut := strings.Cut(start, " ")
		switch {
		case strings.ContainsAny(method, "/?:=\\*") || cut && method == "":
			l.report(line, column, fmt.Sprintf("no request can match %s: a request begins with its method and one space", quote(start)),
				fmt.Sprintf("write \"GET %s\", or \"[A-Z]+ \" for any method", suggestTarget(start)))
			return false
		case cut && target != "" && target[0] != '/' && target != "*":
			l.report(line, column, fmt.Sprintf("no request can match %s: after the method comes a path, which begins with \"/\"", quote(start)),
				fmt.Sprintf("write \"%s %s\"", method, suggestTarget(target)))
			return false
		case cut && !slices.Contains(registeredMethods, method):
			l.warn(line, column, fmt.Sprintf("%s is not a registered method, and methods are case-sensitive", quote(method)),
				"write for example \"GET\" or \"POST\"")
		}
	}
	for _, w := range lintRegex(source) {
		l.warn(line, column+w.at, w.what, w.hint)
	}
	return true
}

// suggestTarget guesses the path in the literal start of a regex, and returns a
// regex for it.
func suggestTarget(s string) string {
	s = strings.TrimLeft(s, " ")
	if _, rest, found := strings.Cut(s, "://"); found {
		_, s, _ = strings.Cut(rest, "/")
	}
	for _, m := range registeredMethods {
		s = strings.TrimPrefix(s, m)
	}
	return regexp.QuoteMeta("/" + strings.TrimLeft(s, "/"))
}

type regexWarning struct {
	at         int // characters from the start of the regex
	what, hint string
}

// lintRegex warns about regexes that usually match more than was meant.
func lintRegex(source string) []regexWarning {
	var out []regexWarning
	inClass := false
	for i := 0; i < len(source); i++ {
		switch c := source[i]; {
		case strings.HasPrefix(source[i:], `\Q`) && !inClass:
			i += strings.Index(source[i:], `\E`) + 1
		case c == '\\':
			i++
		case inClass:
			inClass = c != ']'
		case c == '[':
			inClass = true
		case c != '.':
		case i > 0 && isWord(source[i-1]) && i+1 < len(source) && isWord(source[i+1]):
			out = append(out, regexWarning{len([]rune(source[:i])), "an unescaped \".\" matches any character", `write "\."`})
		case i+2 < len(source) && (source[i+1] == '*' || source[i+1] == '+') && strings.Trim(source[i+2:], "$)?") != "":
			out = append(out, regexWarning{len([]rune(source[:i])),
				fmt.Sprintf("%q also crosses \"/\" and \"?\", so what follows may match inside the query", source[i:i+2]),
				fmt.Sprintf("write %q", "[^/?]"+source[i+1:i+2])})
		}
	}
	if policy.PathEndsInWord(source) {
		out = append(out, regexWarning{0, "the regex has no end, so it also matches longer names",
			`end it with "/", "$" or "(?:[/?]|$)"`})
	}
	return out
}

func isWord(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}
