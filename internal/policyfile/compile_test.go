package policyfile

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rootcell-ai/rootcell/internal/hostname"
	"github.com/rootcell-ai/rootcell/internal/policy"
)

func name(t *testing.T, s string) hostname.Name {
	t.Helper()
	n, err := hostname.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func files(dns, https, ssh string) Files {
	return Files{
		policy.KindDNS:   {DNSFile, dns},
		policy.KindHTTPS: {HTTPSFile, https},
		policy.KindSSH:   {SSHFile, ssh},
	}
}

func TestCompile(t *testing.T) {
	p, problems := Compile(files("a.example\n", "# x\na.example\n", "a.example\n"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	a := name(t, "a.example")
	for want, got := range map[string]policy.Decision{
		"allowed-dns.txt:1": p.DNS(a), "allowed-https.txt:2": p.TLS(a), "allowed-ssh.txt:1": p.SSH(a),
	} {
		if got != (policy.Decision{Allow: true, Rule: want}) {
			t.Errorf("%s: %+v", want, got)
		}
	}
}

func TestBadListDeniesItsKind(t *testing.T) {
	p, problems := Compile(files("a.example\n", "a.example\n*bad.com\n", "a.example\n"),
		Grant{Kind: policy.KindHTTPS, ID: "1", Line: "b.example"})
	if err := problems.Err(); err == nil || !strings.HasPrefix(err.Error(), "allowed-https.txt:2:1: ") {
		t.Errorf("problems: %v", err)
	}
	for _, host := range []string{"a.example", "b.example"} {
		if d := p.TLS(name(t, host)); d != policy.Deny(policy.BadPolicy) {
			t.Errorf("HTTPS %s: %+v", host, d)
		}
	}
	if d := p.DNS(name(t, "a.example")); !d.Allow {
		t.Errorf("DNS: %+v", d)
	}
}

func TestEmptyListsDeny(t *testing.T) {
	for _, text := range []string{"", "\n\n", "# nothing\n", " \t\r\n", "\ufeff", "#a.example\n"} {
		p, problems := Compile(files(text, text, text))
		if len(problems) > 0 {
			t.Errorf("%q: %v", text, problems)
		}
		a := name(t, "a.example")
		for _, d := range []policy.Decision{p.DNS(a), p.TLS(a), p.SSH(a)} {
			if d != policy.Deny(policy.NoRule) {
				t.Errorf("%q: %+v", text, d)
			}
		}
	}
}

func TestGrants(t *testing.T) {
	lists := files("", "scoped.example GET /a/\n", "")
	p, problems := Compile(lists,
		Grant{Kind: policy.KindDNS, ID: "1", Line: "a.example"},
		Grant{Kind: policy.KindHTTPS, ID: "2", Line: "a.example GET /x/"},
		Grant{Kind: policy.KindHTTPS, ID: "3", Line: "scoped.example"},
		Grant{Kind: policy.KindSSH, ID: "4", Line: "bad"},
		Grant{Kind: policy.KindSSH, ID: "5", Line: "# nothing"},
		Grant{Kind: policy.KindSSH, ID: "6", Line: "a.example\nb.example"},
	)
	want := []string{
		`grant:3: warning: adding "scoped.example": the path rule allowed-https.txt:1 applies to it, so a line without a regex gives nothing; remove that line, or add what you need as a path rule too`,
		`grant:4:1:1: "bad" is not a host: it has a single label, and only full names such as host.example.com count`,
		`grant:5: "# nothing" is not one rule; write one host, or for HTTPS one host and a regex`,
		`grant:6: "a.example\nb.example" is not one rule; write one host, or for HTTPS one host and a regex`,
	}
	if diff := cmp.Diff(want, problemLines(problems)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if d := p.DNS(name(t, "x.a.example")); d != (policy.Decision{Allow: true, Rule: "grant:1"}) {
		t.Errorf("DNS: %+v", d)
	}
	get := func(host, target string) policy.Decision {
		return p.HTTPS(policy.Request{Host: name(t, host), Method: "GET", Target: target})
	}
	if d := get("a.example", "/x/y"); d != (policy.Decision{Allow: true, Rule: "grant:2"}) {
		t.Errorf("HTTPS: %+v", d)
	}
	if d := get("scoped.example", "/b"); d.Allow {
		t.Errorf("a grant without a regex widens a scoped host: %+v", d)
	}
	if d := p.SSH(name(t, "a.example")); d.Allow {
		t.Errorf("a grant of two lines counts: %+v", d)
	}
}

func TestGrantsNeverNarrow(t *testing.T) {
	p, problems := Compile(files("", "a.example\n", ""), Grant{Kind: policy.KindHTTPS, ID: "1", Line: "a.example GET /x/"})
	if len(problems) != 1 || !problems[0].Warning || problems[0].File != "grant:1" {
		t.Errorf("problems: %v", problems)
	}
	if d := p.HTTPS(policy.Request{Host: name(t, "a.example"), Method: "POST", Target: "/y"}); !d.Allow {
		t.Errorf("a grant takes away what the list allows: %+v", d)
	}
}

func writeLists(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, kind := range policy.Kinds() {
		if err := os.WriteFile(filepath.Join(dir, FileName(kind)), []byte("a.example\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoad(t *testing.T) {
	tests := map[string]struct {
		spoil func(t *testing.T, path string)
		want  string // part of the problem; empty when there is none
	}{
		"a regular file": {func(*testing.T, string) {}, ""},
		"a missing file": {func(t *testing.T, path string) { must(t, os.Remove(path)) },
			"no such file or directory; create it; an empty list denies everything"},
		"a directory": {func(t *testing.T, path string) { must(t, os.Remove(path)); must(t, os.Mkdir(path, 0o700)) },
			"it is not a regular file; put a text file in its place"},
		"a FIFO that nobody writes to": {func(t *testing.T, path string) { must(t, os.Remove(path)); must(t, syscall.Mkfifo(path, 0o600)) },
			"it is not a regular file"},
		"a device": {func(t *testing.T, path string) { must(t, os.Remove(path)); must(t, os.Symlink("/dev/zero", path)) },
			"it is not a regular file"},
		"a symbolic link to a file": {func(t *testing.T, path string) {
			must(t, os.Rename(path, path+".real"))
			must(t, os.Symlink(path+".real", path))
		}, ""},
		"a symbolic link to itself": {func(t *testing.T, path string) { must(t, os.Remove(path)); must(t, os.Symlink(path, path)) },
			"too many levels of symbolic links"},
		"a file of the largest size": {func(t *testing.T, path string) { must(t, os.WriteFile(path, make([]byte, MaxBytes), 0o600)) }, ""},
		"a file of a gigabyte":       {func(t *testing.T, path string) { must(t, os.Truncate(path, 1<<30)) }, "it is larger than 8 MiB"},
	}
	for what, tc := range tests {
		t.Run(what, func(t *testing.T) {
			dir := writeLists(t)
			tc.spoil(t, filepath.Join(dir, HTTPSFile))
			got, problems := Load(dir)
			_, present := got[policy.KindHTTPS]
			if present != (tc.want == "") || len(got) < 2 {
				t.Errorf("loaded %d lists, HTTPS: %v", len(got), present)
			}
			if tc.want == "" {
				if len(problems) > 0 {
					t.Errorf("problems: %v", problems)
				}
				return
			}
			if len(problems) != 1 || !strings.HasPrefix(problems[0].String(), "allowed-https.txt: ") || !strings.Contains(problems[0].String(), tc.want) {
				t.Fatalf("problems %v, want %q", problems, tc.want)
			}
			p, _ := Compile(got)
			if d := p.TLS(name(t, "a.example")); d != policy.Deny(policy.BadPolicy) {
				t.Errorf("HTTPS: %+v", d)
			}
			if d := p.DNS(name(t, "a.example")); !d.Allow {
				t.Errorf("DNS: %+v", d)
			}
		})
	}
}

func TestLoadUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	dir := writeLists(t)
	must(t, os.Chmod(filepath.Join(dir, DNSFile), 0))
	got, problems := Load(dir)
	if _, present := got[policy.KindDNS]; present || len(problems) != 1 || problems[0].Hint != "make it readable" {
		t.Errorf("loaded %v, problems %v", got, problems)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
