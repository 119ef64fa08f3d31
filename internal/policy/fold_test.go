package policy

import (
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
)

func TestFoldsToDelimiterIsComplete(t *testing.T) {
	for r := rune(0x80); r <= 0x10FFFF; r++ {
		if 0xD800 <= r && r <= 0xDFFF {
			continue
		}
		folds := strings.ContainsAny(norm.NFKC.String(string(r)), `./\;?#%`)
		if folds != foldsToDelimiter(r) {
			t.Errorf("%U %q: foldsToDelimiter says %v, NFKC gives %q", r, r, !folds, norm.NFKC.String(string(r)))
		}
	}
}
