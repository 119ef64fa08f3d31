package cell

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "default": true, "a1": true, "a-b": true, "a" + strings.Repeat("b", 31): true,
		"": false, "A": false, "1a": false, "a-": false, "-a": false, "a_b": false, "a.b": false, "..": false,
		"a/b": false, "a\n": false, "a b": false, "a" + strings.Repeat("b", 32): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q) = %v", name, err)
		} else if err != nil && ExitCode(err) != ExitUsage {
			t.Errorf("CheckName(%q) has exit code %d", name, ExitCode(err))
		}
	}
}

func TestFindRoot(t *testing.T) {
	work := t.TempDir()
	project := t.TempDir()
	if err := os.WriteFile(filepath.Join(project, configFile), []byte("schema = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		env  map[string]string
		work string
		want string
	}{
		"the variable wins over a project":           {env: map[string]string{"ROOTCELL_STATE_DIR": "/s"}, work: project, want: "/s"},
		"instances beside a project's rootcell.toml": {env: map[string]string{"XDG_STATE_HOME": "/x"}, work: project, want: filepath.Join(project, "instances")},
		"the XDG state directory":                    {env: map[string]string{"XDG_STATE_HOME": "/x", "HOME": "/h"}, work: work, want: "/x/rootcell/instances"},
		"a relative XDG directory is ignored":        {env: map[string]string{"XDG_STATE_HOME": "x", "HOME": "/h"}, work: work, want: "/h/.local/state/rootcell/instances"},
		"the default of XDG":                         {env: map[string]string{"HOME": "/h"}, work: work, want: "/h/.local/state/rootcell/instances"},
		"nothing set":                                {work: work},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root, err := FindRoot(func(k string) string { return tt.env[k] }, tt.work)
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), "ROOTCELL_STATE_DIR") {
					t.Fatalf("root %q, err %v", root.Dir, err)
				}
				return
			}
			if err != nil || root.Dir != tt.want {
				t.Errorf("root %q, err %v, want %q", root.Dir, err, tt.want)
			}
		})
	}
}

func TestSelection(t *testing.T) {
	root := Root{Dir: filepath.Join(t.TempDir(), "new", "instances")}
	if name, err := root.Selected(); name != DefaultInstance || err != nil {
		t.Errorf("without a selection: %q, %v", name, err)
	}
	if err := root.Select("work"); err != nil {
		t.Fatal(err)
	}
	if name, err := root.Selected(); name != "work" || err != nil {
		t.Errorf("selected %q, %v", name, err)
	}
	if err := root.Select("../x"); ExitCode(err) != ExitUsage {
		t.Errorf("selecting a bad name: %v", err)
	}
	if err := os.WriteFile(filepath.Join(root.Dir, selectionFile), []byte("../../etc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Selected(); ExitCode(err) != ExitUsage {
		t.Errorf("corrupt selection: %v", err)
	}
}

func TestInstancesListsOnlyInstances(t *testing.T) {
	root := Root{Dir: t.TempDir()}
	for _, f := range []string{"b/state.json", "a/rootcell.toml", "Bad/state.json", "empty/other", "c/v/state.json"} {
		path := filepath.Join(root.Dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := root.Instances()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a", "b"}, got); d != "" {
		t.Error(d)
	}
}
