package policy

import (
	"regexp/syntax"
	"strings"
)

// PathStarts returns the literal text with which a match of the regex begins,
// one for each alternative at its start, for checks that a request can match
// at all. An alternative that begins with anything else is left out.
func PathStarts(source string) []string {
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil
	}
	var texts []string
	for _, s := range starts(tree.Simplify()) {
		texts = append(texts, s.text)
	}
	return texts
}

// start is how a match of an expression begins; whole when that is all of it.
type start struct {
	text  string
	whole bool
}

func starts(re *syntax.Regexp) []start {
	switch re.Op {
	case syntax.OpLiteral:
		text := string(re.Rune)
		if re.Flags&syntax.FoldCase != 0 {
			// The parser keeps one of the cases; methods are upper-case.
			text = strings.ToUpper(text)
		}
		return []start{{text, true}}
	case syntax.OpCapture:
		return starts(re.Sub[0])
	case syntax.OpAlternate:
		var all []start
		for _, sub := range re.Sub {
			all = append(all, starts(sub)...)
		}
		return all
	case syntax.OpConcat:
		for i, sub := range re.Sub {
			switch sub.Op {
			case syntax.OpBeginText, syntax.OpBeginLine, syntax.OpEmptyMatch:
				continue
			}
			return join(starts(sub), re.Sub[i+1:])
		}
	}
	return nil
}

// join continues each whole start with the literal that follows, if one does.
func join(first []start, rest []*syntax.Regexp) []start {
	for i := range first {
		if len(rest) > 0 && first[i].whole && rest[0].Op == syntax.OpLiteral && rest[0].Flags&syntax.FoldCase == 0 {
			first[i].text += string(rest[0].Rune)
		}
		first[i].whole = first[i].whole && len(rest) == 0
	}
	return first
}

// PathEndsInWord reports whether a match can end in a literal letter or digit
// with nothing after it that ends the name: `GET /public` also matches
// `GET /publications`.
func PathEndsInWord(source string) bool {
	tree, err := syntax.Parse(source, syntax.Perl)
	return err == nil && endsInWord(tree)
}

func endsInWord(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpLiteral:
		last := re.Rune[len(re.Rune)-1]
		return last < 0x80 && (isUnreserved(byte(last)) || last == '%')
	case syntax.OpCapture:
		return endsInWord(re.Sub[0])
	case syntax.OpConcat:
		return endsInWord(re.Sub[len(re.Sub)-1])
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			if endsInWord(sub) {
				return true
			}
		}
	}
	return false
}
