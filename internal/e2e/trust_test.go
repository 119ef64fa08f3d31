//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rootcell-ai/rootcell/internal/netlab"
)

// TestClientsTrustTheCA holds that the programs agents use trust the instance's CA by what the agent's boot wrote, and
// that each would refuse without it: otherwise the test would show nothing.
func TestClientsTrustTheCA(t *testing.T) {
	l := newLab(t, netlab.Options{})
	const url = "https://ok.test.example/trusted"
	l.world.Host(t, "git.test.example", gitBackend(t, l.Dir))
	largeRepository(t, l.Dir, 1000)
	goProgram := l.buildGet(t)
	clients := map[string][]string{
		"curl":                   {"curl", "-sS", url},
		"openssl":                {"sh", "-c", "printf 'GET /trusted HTTP/1.1\\r\\nHost: ok.test.example\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -quiet -verify_return_error -servername ok.test.example -connect ok.test.example:443"},
		"Node fetch":             {"node", "-e", "fetch('" + url + "').then(async r => console.log(await r.text()))"},
		"Node https":             {"node", "-e", "require('https').get('" + url + "', r => r.pipe(process.stdout))"},
		"Python urllib":          {"python3", "-c", "import urllib.request as u; print(u.urlopen('" + url + "').read().decode())"},
		"Go net/http":            {goProgram, url},
		"git":                    {"git", "ls-remote", "https://git.test.example/repo.git"},
		"curl, system bundle":    {"env", "-i", "PATH=/usr/bin:/bin", "curl", "-sS", url},
		"openssl, hash link":     {"sh", "-c", "printf 'GET /trusted HTTP/1.1\\r\\nHost: ok.test.example\\r\\nConnection: close\\r\\n\\r\\n' | env -u SSL_CERT_FILE openssl s_client -quiet -verify_return_error -no-CAfile -CApath /etc/ssl/certs -servername ok.test.example -connect ok.test.example:443"},
		"Go, system bundle":      {"env", "-i", goProgram, url},
		"Python, system bundle":  {"env", "-i", "PATH=/usr/bin:/bin", "python3", "-c", "import urllib.request as u; print(u.urlopen('" + url + "').read().decode())"},
		"git, system bundle":     {"env", "-i", "PATH=/usr/bin:/bin", "git", "ls-remote", "https://git.test.example/repo.git"},
		"Python requests or pip": {"python3", "-c", "import os, ssl; c = ssl.create_default_context(cafile=os.environ['REQUESTS_CA_BUNDLE']); import urllib.request as u; print(u.urlopen('" + url + "', context=c).read().decode())"},
	}
	for name, words := range clients {
		t.Run(name, func(t *testing.T) {
			l.tool(t, words[0])
			r := l.try(t, words[0], words[1:]...)
			if r.code != 0 || !strings.Contains(r.stdout, "/trusted") && !strings.Contains(r.stdout, "refs/heads/main") {
				t.Errorf("with the CA: %+v", r)
			}
		})
	}
	t.Run("without the boot's files nobody trusts it", func(t *testing.T) {
		for _, name := range []string{"curl", "openssl", "Node https", "Python urllib", "Go net/http", "git"} {
			words := clients[name]
			path := l.tool(t, words[0])
			cmd := l.Agent.Command(t.Context(), path, words[1:]...)
			cmd.Env = slices.DeleteFunc(l.agentEnv(t), func(v string) bool { return strings.Contains(v, "/usr/local/share") || strings.Contains(v, "/etc/ssl") })
			if out, err := cmd.CombinedOutput(); err == nil && (strings.Contains(string(out), "/trusted\n") || strings.Contains(string(out), "refs/heads/main")) {
				t.Errorf("%s: %s", name, out)
			}
		}
	})
}

// buildGet builds a Go program that knows nothing of the laboratory: it gets a URL with the defaults of net/http.
func (l *lab) buildGet(t *testing.T) string {
	t.Helper()
	source := filepath.Join(l.Dir, "get.go")
	const text = `package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	res, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = io.Copy(os.Stdout, res.Body)
}
`
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(l.Dir, "get")
	cmd := exec.Command("go", "build", "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building a Go client: %v: %s", err, out)
	}
	return program
}
