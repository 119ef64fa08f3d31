package sshx

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// NewKey makes an ed25519 key in OpenSSH's PEM format, without passphrase, for
// a control key or a host key. The comment shows in the public line.
func NewKey(comment string) (privatePEM []byte, signer ssh.Signer, err error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generating SSH key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding SSH key: %w", err)
	}
	signer, err = ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("using SSH key: %w", err)
	}
	return pem.EncodeToMemory(block), signer, nil
}

// ParseKey reads a private key in PEM format.
func ParseKey(privatePEM []byte) (ssh.Signer, error) {
	signer, err := ssh.ParsePrivateKey(privatePEM)
	if err != nil {
		return nil, fmt.Errorf("reading SSH key: %w", err)
	}
	return signer, nil
}

// PublicLine is the key as authorized_keys has it, without line end. The
// comment may be empty.
func PublicLine(key ssh.PublicKey, comment string) string {
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
	if comment != "" {
		line += " " + comment
	}
	return line
}

// ParsePublicLine reads a line of authorized_keys or of a .pub file that has
// no options.
func ParsePublicLine(line string) (ssh.PublicKey, error) {
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading SSH public key: %w", err)
	case len(options) > 0 || len(strings.TrimSpace(string(rest))) > 0:
		return nil, fmt.Errorf("reading SSH public key: expected one key without options")
	}
	return key, nil
}
