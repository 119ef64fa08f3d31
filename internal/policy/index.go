package policy

import (
	"math"
	"strings"
)

// index finds the rules of one list that match a host. Rules are filed under
// their literal labels at the end, exact names under themselves, so a look-up
// costs one map access for each label of the host however many exact rules
// there are. Globs without a literal end, such as `**`, are tried one by one.
type index struct {
	count int
	exact map[string][]entry
	tails map[string][]entry // suffixes and globs, by literal tail
	rest  []entry
}

type entry struct {
	Rule
	order int // position in the list
}

// none comes after every entry and stands for "no entry yet".
var none = &entry{order: math.MaxInt}

func newIndex(rules []Rule) *index {
	ix := &index{count: len(rules), exact: make(map[string][]entry, len(rules)), tails: make(map[string][]entry)}
	for order, r := range rules {
		e := entry{Rule: r, order: order}
		switch {
		case r.Host.form == formExact:
			ix.exact[r.Host.text] = append(ix.exact[r.Host.text], e)
		case r.Host.tail != "":
			ix.tails[r.Host.tail] = append(ix.tails[r.Host.tail], e)
		default:
			ix.rest = append(ix.rest, e)
		}
	}
	return ix
}

// each calls f for every rule that matches host, in no particular order.
// The empty host, which is no name, matches nothing.
func (ix *index) each(host string, f func(*entry)) {
	if host == "" {
		return
	}
	call := func(list []entry) {
		for i := range list {
			if list[i].Host.matchText(host) {
				f(&list[i])
			}
		}
	}
	call(ix.exact[host])
	if len(ix.tails) > 0 {
		for tail, more := host, true; more; _, tail, more = strings.Cut(tail, ".") {
			call(ix.tails[tail])
		}
	}
	call(ix.rest)
}
