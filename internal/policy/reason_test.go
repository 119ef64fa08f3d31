package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"testing"
)

// The table documents every code for users; a code that is only a constant
// would reach them without a meaning.
func TestReasonsAreOneTable(t *testing.T) {
	declared := map[Reason]bool{}
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != "Reason" {
			return true
		}
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		declared[Reason(code)] = true
		return true
	})
	if len(declared) < 15 {
		t.Fatalf("found only %d constants", len(declared))
	}
	form := regexp.MustCompile(`\A[a-z]+(-[a-z]+)*\z`)
	for _, info := range Reasons() {
		if !declared[info.Reason] {
			t.Errorf("%q is in the table twice or has no constant", info.Reason)
		}
		delete(declared, info.Reason)
		if !form.MatchString(string(info.Reason)) {
			t.Errorf("%q is not a code", info.Reason)
		}
		if info.Meaning == "" || info.Reason.Meaning() != info.Meaning {
			t.Errorf("%q means %q", info.Reason, info.Reason.Meaning())
		}
	}
	for code := range declared {
		t.Errorf("%q is not in the table", code)
	}
	if Reason("nothing").Meaning() != "" {
		t.Error("an unknown code has a meaning")
	}
}
