package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// sections are the catalogue's sections that concern the firewall, and how many attacks each has.
var sections = []struct {
	letter string
	count  int
}{{"A", 23}, {"B", 30}, {"C", 13}, {"D", 16}, {"E", 14}, {"F", 11}, {"H", 8}, {"J", 6}, {"K", 8}}

type attack struct {
	ID, Title, Decision, Later, Note string
	Tests                            []string
}

func readAttacks(t *testing.T) []attack {
	t.Helper()
	text, err := os.ReadFile("../../checks/attacks.toml")
	if err != nil {
		t.Fatal(err)
	}
	var table struct {
		Schema int
		Attack []attack
	}
	if err := toml.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	return table.Attack
}

// testIndex finds tests in the source.
type testIndex map[string]map[string][]string // package, test, string literals within

func (index testIndex) literals(t *testing.T, pkg, test string) ([]string, bool) {
	t.Helper()
	if index[pkg] == nil {
		index[pkg] = map[string][]string{}
		files, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range parsed.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
					index[pkg][f.Name.Name] = stringsIn(f)
				}
			}
		}
	}
	found, ok := index[pkg][test]
	return found, ok
}

func stringsIn(node ast.Node) []string {
	all := []string{}
	ast.Inspect(node, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if text, err := strconv.Unquote(literal.Value); err == nil {
				all = append(all, text)
			}
		}
		return true
	})
	return all
}

// exists reports whether a test of the form "package TestName/sub-test" is in the source: the sub-test by a word that one of the test's
// strings begins with.
func (index testIndex) exists(t *testing.T, name string) bool {
	t.Helper()
	pkg, path, _ := strings.Cut(name, " ")
	test, sub, _ := strings.Cut(path, "/")
	literals, ok := index.literals(t, pkg, test)
	if !ok || sub == "" {
		return ok
	}
	for _, text := range literals {
		for _, word := range strings.Fields(text) {
			if !attackID.MatchString(word) {
				break
			}
			if word == sub {
				return true
			}
		}
	}
	return false
}

var attackID = regexp.MustCompile(`^[A-K][0-9]{1,2}$`)

// TestEveryAttackHasATest holds checks/attacks.toml against the catalogue and against the source.
func TestEveryAttackHasATest(t *testing.T) {
	missing := map[string]bool{}
	for _, s := range sections {
		for i := range s.count {
			missing[fmt.Sprintf("%s%d", s.letter, i+1)] = true
		}
	}
	index := testIndex{}
	for _, a := range readAttacks(t) {
		if !missing[a.ID] {
			t.Errorf("%s is there twice, or in no section", a.ID)
		}
		delete(missing, a.ID)
		if a.Title == "" || len(a.Tests) == 0 && a.Later == "" {
			t.Errorf("%s has neither a test nor a reason why not", a.ID)
		}
		real := false
		for _, name := range a.Tests {
			if !index.exists(t, name) {
				t.Errorf("%s: there is no test %q", a.ID, name)
			}
			real = real || strings.HasPrefix(name, "internal/e2e ")
		}
		if len(a.Tests) > 0 && !real && a.Note == "" {
			t.Errorf("%s: no test in internal/e2e, and no note says why", a.ID)
		}
	}
	for id := range missing {
		t.Errorf("%s is missing", id)
	}
}

var (
	claim    = regexp.MustCompile(`^(\d+)\. `)
	heldBy   = regexp.MustCompile("`([a-z0-9/-]+ Test[A-Za-z0-9]+(?:/[A-K][0-9]{1,2})?)`")
	decision = regexp.MustCompile(`(?m)^- \*\*([A-K][0-9]{1,2}), `)
)

// TestClaimsAreHeld holds the threat model: its claims are numbered without a gap and each names tests that exist, and its decisions are those of the table.
func TestClaimsAreHeld(t *testing.T) {
	text, err := os.ReadFile("../threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## Claims\n")
	claims, _, closed := strings.Cut(rest, "\n## ")
	if !found || !closed {
		t.Fatal("there is no section of claims")
	}
	index := testIndex{}
	next := 1
	for paragraph := range strings.SplitSeq(claims, "\n\n") {
		number := claim.FindStringSubmatch(strings.TrimSpace(paragraph))
		if number == nil {
			continue
		}
		if number[1] != strconv.Itoa(next) {
			t.Errorf("claim %s, want %d", number[1], next)
		}
		next++
		tests := heldBy.FindAllStringSubmatch(paragraph, -1)
		if len(tests) == 0 {
			t.Errorf("claim %s names no test", number[1])
		}
		for _, name := range tests {
			if !index.exists(t, name[1]) {
				t.Errorf("claim %s: there is no test %q", number[1], name[1])
			}
		}
	}
	if next < 10 {
		t.Errorf("%d claims only", next-1)
	}
	decided := map[string]bool{}
	for _, match := range decision.FindAllStringSubmatch(string(text), -1) {
		decided[match[1]] = true
	}
	for _, a := range readAttacks(t) {
		if (a.Decision != "") != decided[a.ID] {
			t.Errorf("%s: decided in the table: %v, in the threat model: %v", a.ID, a.Decision != "", decided[a.ID])
		}
		if a.Decision != "" && !strings.Contains(string(text), a.Decision) {
			t.Errorf("%s: the threat model words the decision differently", a.ID)
		}
	}
}
