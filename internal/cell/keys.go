package cell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/crypto/ssh"

	"github.com/rootcell-ai/rootcell/internal/ca"
	"github.com/rootcell-ai/rootcell/internal/sshx"
)

// Files of pki/. The certificate is written after the key, so that a
// certificate without its key never comes from a killed command.
const (
	caCertFile = "ca.pem"
	caKeyFile  = "ca.key"
)

// ensureCA makes the instance's certificate authority where there is none, and
// checks the one that is there.
func (c *Cell) ensureCA() error {
	certPath, keyPath := c.path("pki", caCertFile), c.path("pki", caKeyFile)
	_, err := os.Stat(certPath)
	if err == nil {
		cert, key, err := c.readCA()
		if err != nil {
			return err
		}
		if _, err := ca.Load(cert, []byte(key)); err != nil {
			return fmt.Errorf("checking the CA of instance %q: %w; restore %q from a backup, or move it away and run %s to get a new CA", c.Name, err, c.path("pki"), c.Hint("up"))
		}
		return closeFile(keyPath)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for the CA: %w", err)
	}
	cert, key, err := ca.Create(c.Name)
	if err != nil {
		return fmt.Errorf("creating the CA of instance %q: %w", c.Name, err)
	}
	if err := writeFile(keyPath, key, 0o600); err != nil {
		return err
	}
	return writeFile(certPath, cert, 0o600)
}

func (c *Cell) readCA() (cert []byte, key string, err error) {
	cert, err = os.ReadFile(c.path("pki", caCertFile))
	if err != nil {
		return nil, "", fmt.Errorf("reading the CA of instance %q: %w; restore it from a backup, or move pki away to get a new CA", c.Name, err)
	}
	text, err := os.ReadFile(c.path("pki", caKeyFile))
	if err != nil {
		return nil, "", fmt.Errorf("reading the CA of instance %q: %w; restore it from a backup, or move pki away to get a new CA", c.Name, err)
	}
	return cert, string(text), nil
}

// closeFile takes a secret file away from group and others.
func closeFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("checking %q: %w", path, err)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("closing %q to other users: %w; run chmod 600 on it as its owner", path, err)
	}
	return nil
}

// keys are the SSH keys of an instance: what the host logs in with, and the
// host keys of the two machines, made here so that they are known exactly from
// the first connection.
type keys struct{ control, firewall, agent key }

type key struct {
	path   string
	pem    string
	signer ssh.Signer
}

// authorized is the public key as a line of authorized_keys, without line end.
func (k key) authorized() string {
	return sshx.PublicLine(k.signer.PublicKey(), "")
}

func (c *Cell) ensureKeys() (keys, error) {
	var ks keys
	for _, want := range []struct {
		name string
		to   *key
	}{{"control_ed25519", &ks.control}, {"firewall_host_ed25519", &ks.firewall}, {"agent_host_ed25519", &ks.agent}} {
		k, err := c.ensureKey(want.name)
		if err != nil {
			return keys{}, err
		}
		*want.to = k
	}
	return ks, nil
}

func (c *Cell) ensureKey(name string) (key, error) {
	path := c.path("ssh", name)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, _, err = sshx.NewKey("rootcell " + c.Name)
		if err == nil {
			err = writeFile(path, text, 0o600)
		}
	}
	if err != nil {
		return key{}, fmt.Errorf("preparing SSH key: %w", err)
	}
	signer, err := sshx.ParseKey(text)
	if err != nil {
		return key{}, fmt.Errorf("reading SSH key %q: %w; delete the file and run %s to get a new one", path, err, c.Hint("up"))
	}
	if err := closeFile(path); err != nil {
		return key{}, err
	}
	public := sshx.PublicLine(signer.PublicKey(), "rootcell "+c.Name)
	if _, err := createFile(path+".pub", []byte(public+"\n"), 0o600); err != nil {
		return key{}, err
	}
	return key{path: path, pem: string(text), signer: signer}, nil
}
