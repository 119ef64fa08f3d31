package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/rootcell-ai/rootcell/"

// pkg is what `go list -json` says of a package, as far as it is used here.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func listPackages(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing packages: %v", err)
	}
	packages := map[string]pkg{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages[strings.TrimPrefix(p.ImportPath, module)] = p
	}
}

// TestForbiddenDependencies pins what a package must not depend on, directly or through others, and why.
func TestForbiddenDependencies(t *testing.T) {
	packages := listPackages(t)
	rules := []struct {
		of, not, why string
	}{
		{"cmd/rootcell-firewall", module + "internal/config", "the appliance is configured by firewall.toml alone"},
		{"cmd/rootcell-firewall", module + "internal/cli", "the appliance is small enough to be read"},
		{"cmd/rootcell-firewall", module + "internal/cell", "the appliance knows nothing of hosts"},
		{"cmd/rootcell-firewall", module + "internal/provider", "the appliance knows nothing of providers"},
		{"cmd/rootcell-firewall", module + "internal/sshx", "the appliance opens no SSH session"},
		{"cmd/rootcell-firewall", module + "internal/image", "the appliance builds nothing"},
		{"cmd/rootcell-firewall", "github.com/aws/", "no cloud SDK where hostile bytes are parsed"},
		{"cmd/rootcell-guest", module + "internal/config", "guests are configured by guest.json alone"},
		{"cmd/rootcell-guest", module + "internal/provider", "guests know nothing of providers"},
		{"cmd/rootcell-guest", "github.com/google/martian", "interception lives in the firewall daemon alone"},
		{"cmd/rootcell", "github.com/google/martian", "interception lives in the firewall daemon alone"},
		{"cmd/rootcell", module + "internal/dnsproxy", "the host enforces nothing"},
		{"cmd/rootcell", module + "internal/httpproxy", "the host enforces nothing"},
		{"cmd/rootcell", module + "internal/sshproxy", "the host enforces nothing"},
		{"cmd/rootcell", module + "internal/firewall", "the host enforces nothing"},
		{"cmd/rootcell", module + "internal/guest", "what runs in guests is not linked into the host's program"},
		{"internal/provider/qemu", module + "internal/provider/fake", "no provider knows another"},
		{"internal/provider/fake", module + "internal/provider/qemu", "no provider knows another"},
		{"internal/provider", module + "internal/config", "the seam is below configuration"},
	}
	for _, rule := range rules {
		p, ok := packages[rule.of]
		if !ok {
			t.Errorf("rule about %s, which does not exist", rule.of)
			continue
		}
		for _, dep := range p.Deps {
			if dep == rule.not || strings.HasPrefix(dep, strings.TrimSuffix(rule.not, "/")+"/") {
				t.Errorf("%s depends on %s: %s", rule.of, dep, rule.why)
			}
		}
	}
}

// TestPurePackages pins the packages that decide: no I/O, no clock, no log.
func TestPurePackages(t *testing.T) {
	packages := listPackages(t)
	forbidden := []string{"net", "net/http", "os", "log/slog", "os/exec", "math/rand", "math/rand/v2"}
	for name, own := range map[string][]string{
		"internal/hostname":    nil,
		"internal/policy":      {"internal/hostname"},
		"internal/specialaddr": nil,
	} {
		p, ok := packages[name]
		if !ok {
			t.Errorf("%s does not exist", name)
			continue
		}
		for _, dep := range p.Imports {
			for _, f := range forbidden {
				if dep == f {
					t.Errorf("%s imports %s, but decides without the outside world", name, dep)
				}
			}
			if rest, ours := strings.CutPrefix(dep, module); ours && !contains(own, rest) {
				t.Errorf("%s imports %s; it may import %v", name, rest, own)
			}
		}
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// goFiles walks the repository's own Go files.
func goFiles(t *testing.T, visit func(path string)) {
	t.Helper()
	for _, top := range []string{"cmd", "internal", "checks"} {
		err := filepath.WalkDir(filepath.Join("../..", top), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") {
				visit(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryPackageHasOneDocComment(t *testing.T) {
	docs := map[string][]string{}
	seen := map[string]bool{}
	goFiles(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(path)
		seen[dir] = true
		if f.Doc != nil && len(f.Doc.Text()) > 0 {
			docs[dir] = append(docs[dir], path)
		}
	})
	for dir := range seen {
		if n := len(docs[dir]); n != 1 {
			t.Errorf("%s has %d package doc comments %v; want exactly one", dir, n, docs[dir])
		}
	}
}

func TestFilesStaySmall(t *testing.T) {
	goFiles(t, func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		limit := 450
		if strings.HasSuffix(path, "_test.go") {
			limit = 900
		}
		if n := bytes.Count(text, []byte("\n")); n > limit {
			t.Errorf("%s has %d lines; split it (limit %d)", path, n, limit)
		}
	})
}

// TestTestsDoNotSleep: a test waits for a condition, never for time to pass.
func TestTestsDoNotSleep(t *testing.T) {
	goFiles(t, func(path string) {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(path, "_test.go") || strings.Contains(path, "synctest") {
			return
		}
		usesSynctest := false
		for _, imp := range f.Imports {
			usesSynctest = usesSynctest || imp.Path.Value == `"testing/synctest"`
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" && !usesSynctest {
				if id, ok := sel.X.(*ast.Ident); ok && id.Name == "time" {
					t.Errorf("%s: time.Sleep in a test; wait for readiness instead", fset.Position(sel.Pos()))
				}
			}
			return true
		})
	})
}

func TestGoModIsPlain(t *testing.T) {
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "replace") || strings.HasPrefix(line, "toolchain") {
			t.Errorf("go.mod has %q: people who import the flake's packages build exactly what is written", line)
		}
	}
	if !bytes.Contains(text, []byte("\ngo 1.26.0\n")) {
		t.Error("go.mod must say go 1.26.0: the pinned nixpkgs release builds with a patch release that may be older than the host's")
	}
}
