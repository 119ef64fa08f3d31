package agentroot

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/rootcell-ai/rootcell/internal/guestcfg"
)

func authority(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: []string{"Root  Cell"}},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func config(t *testing.T) guestcfg.Config {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return guestcfg.Config{
		Schema: 1, Role: guestcfg.RoleAgent, Instance: "work", Hostname: "agent-work",
		Network: guestcfg.Network{
			Cell:        guestcfg.Interface{MAC: "52:54:00:00:00:0c", Address: "192.168.100.11/24", Gateway: "192.168.100.10"},
			PeerAddress: "192.168.100.10", PeerMAC: "52:54:00:00:00:0a",
		},
		SSH:   guestcfg.SSH{HostKey: guestcfg.Secret(pem.EncodeToMemory(block)), AuthorizedKeys: []string{"ssh-ed25519 AAAA host"}},
		Agent: &guestcfg.Agent{User: "dev", CACert: authority(t, "rootcell work"), ConnectAddress: "192.168.100.10:8080", Env: map[string]string{"EDITOR": "vi"}},
	}
}

// debian is a root with the few files that Apply reads.
func debian(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"etc/passwd":                        "root:x:0:0:root:/root:/bin/bash\nagent:x:1000:1000::/home/agent:/bin/bash\n",
		"etc/group":                         "root:x:0:\n",
		"etc/shadow":                        "root:*:1::::::\n",
		"etc/gshadow":                       "root:*::\n",
		"etc/skel/.bashrc":                  "# skeleton\n",
		"etc/environment":                   "MINE=1\n",
		"etc/ssl/certs/ca-certificates.crt": authority(t, "public"),
		"etc/ssh/ssh_config":                "Include /etc/ssh/ssh_config.d/*.conf\n",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// snapshot is every file's content, mode and time of change.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text, _ := os.Readlink(name)
		if entry.Type().IsRegular() {
			text = read(t, "/", name)
		}
		all[strings.TrimPrefix(name, dir)] = fmt.Sprintln(info.Mode(), info.ModTime(), text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestApply(t *testing.T) {
	dir, cfg := debian(t), config(t)
	if err := Apply(dir, cfg); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"etc/hostname":                       "agent-work\n",
		"etc/resolv.conf":                    "nameserver 192.168.100.10\n",
		"etc/passwd":                         "dev:x:1001:1001:rootcell agent:/home/dev:/bin/bash\n",
		"etc/shadow":                         "dev:*:",
		"etc/sudoers.d/rootcell":             "dev ALL=(ALL:ALL) NOPASSWD: ALL\n",
		"etc/ssh/authorized_keys.d/dev":      "ssh-ed25519 AAAA host\n",
		"etc/ssh/ssh_config.d/rootcell.conf": "connect --proxy 192.168.100.10:8080 %h %p",
		"etc/environment":                    "NODE_EXTRA_CA_CERTS=\"/usr/local/share/ca-certificates/rootcell.crt\"",
		"home/dev/.bashrc":                   "# skeleton\n",
		"home/dev/AGENTS.md":                 "rootcell -i work allow HOST",
		"etc/ssl/certs/ca-certificates.crt":  cfg.Agent.CACert,
	} {
		if got := read(t, dir, name); !strings.Contains(got, want) {
			t.Errorf("%s lacks %q:\n%s", name, want, got)
		}
	}
	if got := read(t, dir, "etc/environment"); !strings.HasPrefix(got, "MINE=1\n") || !strings.Contains(got, "EDITOR=\"vi\"\n") {
		t.Errorf("environment is %q", got)
	}
	info, err := os.Stat(filepath.Join(dir, "etc/ssh/ssh_host_ed25519_key"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("host key: %v, %v", info.Mode(), err)
	}

	before := snapshot(t, dir)
	if err := Apply(dir, cfg); err != nil {
		t.Fatal(err)
	}
	after := snapshot(t, dir)
	for name := range after { // links are made again
		if strings.Contains(name, "ssl/certs/") && after[name] != before[name] && !strings.HasSuffix(name, ".crt") {
			delete(after, name)
			delete(before, name)
		}
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("a second boot changed files:\n%s", diff)
	}
}

func TestApplyTakesUpAChangedDocument(t *testing.T) {
	dir, cfg := debian(t), config(t)
	if err := Apply(dir, cfg); err != nil {
		t.Fatal(err)
	}
	old := cfg.Agent.CACert
	cfg.Hostname, cfg.Agent.CACert, cfg.SSH.AuthorizedKeys = "other", authority(t, "rootcell other"), []string{"ssh-ed25519 BBBB host"}
	delete(cfg.Agent.Env, "EDITOR")
	if err := Apply(dir, cfg); err != nil {
		t.Fatal(err)
	}
	bundle := read(t, dir, caBundle)
	if strings.Contains(bundle, old) || strings.Count(bundle, cfg.Agent.CACert) != 1 || strings.Count(bundle, "BEGIN") != 2 {
		t.Errorf("bundle:\n%s", bundle)
	}
	links, err := filepath.Glob(filepath.Join(dir, caDir, "*.0"))
	if err != nil || len(links) != 1 {
		t.Errorf("hash links: %q, %v", links, err)
	}
	if strings.Contains(read(t, dir, "etc/environment"), "EDITOR") {
		t.Error("a variable that was taken back is still there")
	}
	if got := read(t, dir, AuthorizedKeys+"dev"); got != "ssh-ed25519 BBBB host\n" {
		t.Errorf("authorized keys: %q", got)
	}
}

func TestApplyStaysInTheRoot(t *testing.T) {
	dir, outside := debian(t), t.TempDir()
	// What root in the agent may have left: links out of the root in the
	// place of files and of a directory.
	for _, name := range []string{"etc/hostname", "etc/resolv.conf", "etc/ssh/ssh_known_hosts"} {
		if err := os.Symlink(filepath.Join(outside, "victim"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "etc/sudoers.d")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "etc/hosts/deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := Apply(dir, config(t))
	if err == nil || !strings.Contains(err.Error(), "user") {
		t.Errorf("Apply = %v, want the step that a link took out of the root", err)
	}
	left, err := os.ReadDir(outside)
	if err != nil || len(left) != 0 {
		t.Errorf("wrote outside: %v, %v", left, err)
	}
	if got := read(t, dir, "etc/hostname"); got != "agent-work\n" {
		t.Errorf("hostname is %q", got)
	}
	if got := read(t, dir, "etc/hosts"); !strings.Contains(got, "firewall") {
		t.Errorf("hosts is %q", got)
	}
}

func TestGuidanceLeavesTheUsersOwnAlone(t *testing.T) {
	dir, cfg := debian(t), config(t)
	if err := Apply(dir, cfg); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, "home/dev/AGENTS.md")
	if err := os.WriteFile(own, []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Apply(dir, cfg); err != nil {
		t.Fatal(err)
	}
	if got := read(t, dir, "home/dev/AGENTS.md"); got != "mine\n" {
		t.Errorf("AGENTS.md is %q", got)
	}
}

func TestTrustRefuses(t *testing.T) {
	good := authority(t, "x")
	cases := map[string]string{
		"nothing":          "",
		"two certificates": good + good,
		"a key":            string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})),
		"a damaged one":    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})),
		"one that is no CA": func() string {
			key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			template := &x509.Certificate{SerialNumber: big.NewInt(1)}
			der, _ := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		}(),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			root, err := os.OpenRoot(debian(t))
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			if err := Trust(root, []byte(text)); err == nil {
				t.Error("trusted")
			}
		})
	}
}

func TestSubjectHashIsOpenSSLs(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	for _, name := range []string{"rootcell work", "  MiXed   CASE ", "ünïcode Ä"} {
		cert := authority(t, name)
		cmd := exec.Command(openssl, "x509", "-noout", "-hash")
		cmd.Stdin = strings.NewReader(cert)
		want, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(cert))
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		hash, err := subjectHash(parsed.RawSubject)
		if err != nil || fmt.Sprintf("%08x\n", hash) != string(want) {
			t.Errorf("subjectHash(%q) = %08x, %v; openssl says %s", name, hash, err, want)
		}
	}
}

// GitHub's and Codeberg's fingerprints were read in their own documentation and
// GitLab's ECDSA one in its own repository; GitLab's Ed25519, Bitbucket's and
// Azure DevOps' are as several public repositories quote them (2026-11-22).
func TestKnownHostsHavePublishedFingerprints(t *testing.T) {
	published := map[string]string{
		"github.com ssh-ed25519":            "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
		"github.com ecdsa-sha2-nistp256":    "SHA256:p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
		"github.com ssh-rsa":                "SHA256:uNiVztksCsDhcc0u9e8BujQXVUpKZIDTMczCvj3tD2s",
		"gitlab.com ssh-ed25519":            "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
		"gitlab.com ecdsa-sha2-nistp256":    "SHA256:HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
		"bitbucket.org ssh-ed25519":         "SHA256:ybgmFkzwOSotHTHLJgHO0QN8L0xErw6vd0VhFA9m3SM",
		"bitbucket.org ecdsa-sha2-nistp256": "SHA256:FC73VB6C4OQLSCrjEayhMp9UMxS97caD/Yyi2bhW/J0",
		"codeberg.org ssh-ed25519":          "SHA256:mIlxA9k46MmM6qdJOdMnAQpzGxF4WIVVL+fj+wZbw0g",
		"ssh.dev.azure.com ssh-rsa":         "SHA256:ohD8VZEXGWo6Ez8GSEJQ9WpafgLFsOfLOtGGQCQo6Og",
	}
	got := map[string]string{}
	for rest := []byte(knownHosts); ; {
		_, hosts, key, _, next, err := ssh.ParseKnownHosts(rest)
		if err != nil {
			break
		}
		for _, host := range hosts {
			got[host+" "+key.Type()] = ssh.FingerprintSHA256(key)
		}
		rest = next
	}
	if diff := cmp.Diff(published, got); diff != "" {
		t.Errorf("known hosts differ from what is published (-published +file):\n%s", diff)
	}
}
