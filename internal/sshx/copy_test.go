package sshx

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree is a directory as text: mode, name and content of everything in it.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		content := ""
		switch {
		case entry.Type()&fs.ModeSymlink != 0:
			content, err = os.Readlink(path)
			found[name] = "link " + content
			return err
		case entry.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(data)
		}
		found[name] = info.Mode().String() + " " + content
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// fill makes files, directories (a trailing slash) and links (-> target).
func fill(t *testing.T, dir string, entries map[string]string) {
	t.Helper()
	for name, content := range entries {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, isLink := strings.CutPrefix(content, "-> "); isLink {
			err = os.Symlink(target, path)
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o755)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// work is a tree with everything that is copied faithfully.
func work(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "wörk dir")
	fill(t, dir, map[string]string{
		"a.txt": "alpha", "empty": "", "sub/deep/b": "beta", "sub/void/": "", "-rf": "option",
		"sub/up": "-> ../a.txt", "sub/near": "-> deep/b", "big": strings.Repeat("0123456789abcdef", 200_000),
	})
	if err := os.Chmod(filepath.Join(dir, "a.txt"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "sub/deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCopyBothWaysKeepsTheTree(t *testing.T) {
	client := connectSSHD(t)
	from := work(t)
	away, back := t.TempDir(), t.TempDir()
	var last int64
	options := CopyOptions{Sources: []string{from}, Destination: ":" + away, Recursive: true, Progress: func(n int64, _ string) { last = n }}
	if err := client.Copy(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree(t, from), tree(t, filepath.Join(away, "wörk dir"))); diff != "" {
		t.Errorf("the upload differs (-host +agent):\n%s", diff)
	}
	if want := int64(200_000*16 + 5 + 4 + 6); last != want {
		t.Errorf("progress ends at %d bytes, want %d", last, want)
	}
	last = 0
	options.Sources = []string{":" + filepath.Join(away, "wörk dir")}
	for _, destination := range []string{filepath.Join(back, "renamed"), back, back} { // the last time over what is there
		options.Destination = destination
		if err := client.Copy(t.Context(), options); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"renamed", "wörk dir"} {
		if diff := cmp.Diff(tree(t, from), tree(t, filepath.Join(back, name))); diff != "" {
			t.Errorf("the download %q differs (-host +back):\n%s", name, diff)
		}
	}
	if last == 0 {
		t.Error("a download reports no progress")
	}
}

func TestCopySingleFiles(t *testing.T) {
	client := connectSSHD(t)
	host, agent := t.TempDir(), t.TempDir()
	fill(t, host, map[string]string{"one": "1", "two": "2", "link": "-> one"})
	run := func(destination string, sources ...string) {
		t.Helper()
		if err := client.Copy(t.Context(), CopyOptions{Sources: sources, Destination: destination}); err != nil {
			t.Fatal(err)
		}
	}
	run(":"+agent, host+"/one", host+"/two", host+"/link")
	run(":"+agent+"/new", host+"/one")
	run(":"+agent+"/new", host+"/two")
	run(host+"/got", ":"+agent+"/new")
	run(host+"/two", ":"+agent+"/link")
	want := map[string]string{"one": "-rw-r--r-- 1", "two": "-rw-r--r-- 2", "link": "-rw-r--r-- 1", "new": "-rw-r--r-- 2"}
	if diff := cmp.Diff(want, tree(t, agent)); diff != "" {
		t.Errorf("unexpected files in the agent (-want +got):\n%s", diff)
	}
	if got := tree(t, host); got["got"] != "-rw-r--r-- 2" || got["two"] != "-rw-r--r-- 1" {
		t.Errorf("unexpected files on the host: %v", got)
	}
}

func TestCopyRefuses(t *testing.T) {
	client := connectSSHD(t)
	dir := t.TempDir()
	fill(t, dir, map[string]string{"file": "x", "directory/": "", "fifo-target": "x"})
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		sources     []string
		destination string
		want        string
	}{
		"two host sides":               {[]string{dir + "/file"}, dir + "/x", "neither side is in the agent"},
		"two agent sides":              {[]string{":" + dir + "/file"}, ":" + dir + "/x", "both sides are in the agent"},
		"sources on both sides":        {[]string{":" + dir + "/file", dir + "/file"}, dir + "/x", "sources are on both sides"},
		"no source":                    {nil, ":/x", "there is no source"},
		"an empty source":              {[]string{":"}, dir, "a source is empty"},
		"no destination":               {[]string{":" + dir + "/file"}, "", "the destination is empty"},
		"a directory without -r":       {[]string{":" + dir + "/directory"}, dir + "/x", "add -r"},
		"a host directory without -r":  {[]string{dir + "/directory"}, ":" + dir + "/x", "add -r"},
		"a missing source":             {[]string{":" + dir + "/nope"}, dir, "nope"},
		"a missing host source":        {[]string{dir + "/nope"}, ":" + dir, "nope"},
		"several to a file":            {[]string{":" + dir + "/file", ":" + dir + "/file"}, dir + "/x", "no directory"},
		"several to a file, up":        {[]string{dir + "/file", dir + "/file"}, ":" + dir + "/x", "no directory"},
		"the root has no name":         {[]string{":/"}, dir, "no name"},
		"the home's parent has none":   {[]string{":.."}, dir, "no name"},
		"over a pipe of the host":      {[]string{":" + dir + "/file"}, dir + "/fifo", "remove it first"},
		"into a directory that is not": {[]string{":" + dir + "/file"}, dir + "/a/b/", "no directory"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			before := tree(t, dir+"/directory")
			err := client.Copy(t.Context(), CopyOptions{Sources: test.sources, Destination: test.destination, Recursive: name == "the root has no name" || name == "the home's parent has none"})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Copy = %v, want %q in it", err, test.want)
			}
			if diff := cmp.Diff(before, tree(t, dir+"/directory")); diff != "" {
				t.Errorf("something was written:\n%s", diff)
			}
		})
	}
}

func TestCopySkipsWhatIsNoFileAndLinksThatLeadOut(t *testing.T) {
	client := connectSSHD(t)
	agent, host := t.TempDir(), t.TempDir()
	fill(t, agent, map[string]string{
		"w/file": "x", "w/out": "-> /etc/passwd", "w/up": "-> ../secret", "w/dir/up2": "-> ../../x", "w/dir/ok": "-> ../file",
		"w/trick": "-> dir/../../x", "w/repo/.git/hooks/post-checkout": "#!/bin/sh\n",
	})
	if err := syscall.Mkfifo(filepath.Join(agent, "w/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"w/file": 0o755 | fs.ModeSetuid | fs.ModeSetgid, "w/repo/.git/hooks/post-checkout": 0o755} {
		if err := os.Chmod(filepath.Join(agent, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	var notes []string
	err := client.Copy(t.Context(), CopyOptions{
		Sources: []string{":" + agent + "/w"}, Destination: host, Recursive: true,
		Note: func(text string) { notes = append(notes, text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"dir": "drwxr-xr-x ", "dir/ok": "link ../file", "file": "-rwxr-xr-x x",
		"repo": "drwxr-xr-x ", "repo/.git": "drwxr-xr-x ", "repo/.git/hooks": "drwxr-xr-x ", "repo/.git/hooks/post-checkout": "-rw-r--r-- #!/bin/sh\n",
	}
	if diff := cmp.Diff(want, tree(t, host+"/w")); diff != "" {
		t.Errorf("unexpected files (-want +got):\n%s", diff)
	}
	if len(notes) != 6 {
		t.Errorf("want a note for the pipe, four links and the Git directory, got\n%s", strings.Join(notes, "\n"))
	}
}

func TestCopyDoesNotFollowLinksOfTheHost(t *testing.T) {
	client := connectSSHD(t)
	agent, host, outside := t.TempDir(), t.TempDir(), t.TempDir()
	fill(t, agent, map[string]string{"w/d/file": "agent", "f": "agent"})
	fill(t, outside, map[string]string{"file": "host"})
	fill(t, host, map[string]string{"w/d": "-> " + outside, "f": "-> " + outside + "/file"})
	for _, source := range []string{"/w", "/f"} {
		if err := client.Copy(t.Context(), CopyOptions{Sources: []string{":" + agent + source}, Destination: host, Recursive: true}); err == nil {
			t.Errorf("copying %s went through a link", source)
		}
	}
	if got := tree(t, outside)["file"]; got != "-rw-r--r-- host" {
		t.Errorf("a file outside of the destination is now %q", got)
	}
	// Nor does what the host sends.
	fill(t, host, map[string]string{"up/leak": "-> " + outside + "/file"})
	if err := client.Copy(t.Context(), CopyOptions{Sources: []string{host + "/up"}, Destination: ":" + agent, Recursive: true}); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, agent)["up/leak"]; got != "link "+outside+"/file" {
		t.Errorf("up/leak = %q, want the link itself", got)
	}
}

func TestCopyKeepsToItsLimits(t *testing.T) {
	client := connectSSHD(t)
	agent, host := t.TempDir(), t.TempDir()
	fill(t, agent, map[string]string{"w/a": "12345", "w/b": "12345"})
	for name, options := range map[string]CopyOptions{
		"bytes": {MaxBytes: 9},
		"files": {MaxEntries: 2},
	} {
		options.Sources, options.Destination, options.Recursive = []string{":" + agent + "/w"}, host, true
		if err := client.Copy(t.Context(), options); err == nil || !strings.Contains(err.Error(), "more than") {
			t.Errorf("%s: Copy = %v", name, err)
		}
	}
	for name := range tree(t, host) {
		if strings.Contains(name, ".rootcell-copy-") {
			t.Errorf("%s is left behind", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Copy(ctx, CopyOptions{Sources: []string{":" + agent + "/w"}, Destination: host, Recursive: true}); err == nil {
		t.Error("a cancelled copy ends well")
	}
}

func TestIsInnerTarget(t *testing.T) {
	tests := map[string]struct {
		target string
		up     int
		want   bool
	}{
		"a neighbour":                      {"b", 0, true},
		"below":                            {"./d//b/", 0, true},
		"one up where that is inside":      {"../b", 1, true},
		"one up where that is outside":     {"../b", 0, false},
		"two up":                           {"../../b", 1, false},
		"the way back may be another link": {"d/../b", 3, false},
		"absolute":                         {"/etc/passwd", 9, false},
		"empty":                            {"", 9, false},
		"a lone copy has no inside":        {"b", -1, false},
		"with a zero byte":                 {"a\x00b", 1, false},
		"endless":                          {strings.Repeat("a/", 3000), 1, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := isInnerTarget(test.target, test.up); got != test.want {
				t.Errorf("isInnerTarget(%q, %d) = %v", test.target, test.up, got)
			}
		})
	}
}
