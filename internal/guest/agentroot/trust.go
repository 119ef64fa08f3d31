package agentroot

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // OpenSSL names its links by SHA-1; nothing rests on it.
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// The places of a CA certificate in a Debian system.
const (
	caSource = "usr/local/share/ca-certificates/rootcell.crt" // update-ca-certificates takes it from here
	caDir    = "etc/ssl/certs/"
	caLink   = caDir + "rootcell.pem"
	caBundle = caDir + "ca-certificates.crt"
)

// Trust makes the system trust the CA certificate in the PEM text, and no
// longer the one it trusted through an earlier call. The result is what
// update-ca-certificates would make, without running it.
func Trust(root *os.Root, text []byte) error {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return errors.New("reading the CA certificate: not one PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("reading the CA certificate: %w", err)
	}
	if !cert.IsCA {
		return errors.New("reading the CA certificate: it is not one of a CA")
	}
	hash, err := subjectHash(cert.RawSubject)
	if err != nil {
		return fmt.Errorf("hashing the CA's subject: %w", err)
	}
	canonical := pem.EncodeToMemory(block)
	old, err := root.ReadFile(caSource)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the CA trusted before: %w", err)
	}
	bundle, err := root.ReadFile(caBundle)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the CA bundle: %w", err)
	}
	if err := unlink(root); err != nil {
		return err
	}
	// The source is written last: it says which certificate the bundle holds.
	if err := write(root, file{name: caBundle, text: rebundle(string(bundle), string(old), string(canonical))}); err != nil {
		return err
	}
	if err := link(root, "/"+caSource, caLink); err != nil {
		return err
	}
	if err := linkHash(root, hash); err != nil {
		return err
	}
	return write(root, file{name: caSource, text: string(canonical)})
}

// rebundle returns the bundle with the new certificate at its end and without
// the old one.
func rebundle(bundle, old, current string) string {
	for _, gone := range []string{old, current} {
		if gone != "" {
			bundle = strings.ReplaceAll(bundle, gone, "")
		}
	}
	if bundle != "" && !strings.HasSuffix(bundle, "\n") {
		bundle += "\n"
	}
	return bundle + current
}

// linkHash makes OpenSSL's look-up link: the subject's hash and the first free
// number.
func linkHash(root *os.Root, hash uint32) error {
	for n := range 16 {
		name := fmt.Sprintf("%s%08x.%d", caDir, hash, n)
		if _, err := root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return link(root, "rootcell.pem", name)
		}
	}
	return fmt.Errorf("linking the CA: every name for the hash %08x is taken", hash)
}

// unlink removes the hash links of an earlier certificate.
func unlink(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), strings.TrimSuffix(caDir, "/"))
	if errors.Is(err, fs.ErrNotExist) {
		return root.MkdirAll(strings.TrimSuffix(caDir, "/"), 0o755)
	}
	if err != nil {
		return fmt.Errorf("reading the trusted certificates: %w", err)
	}
	for _, entry := range entries {
		if entry.Type() != fs.ModeSymlink {
			continue
		}
		if target, err := root.Readlink(caDir + entry.Name()); err == nil && target == "rootcell.pem" {
			if err := root.Remove(caDir + entry.Name()); err != nil {
				return fmt.Errorf("removing %q: %w", entry.Name(), err)
			}
		}
	}
	return nil
}

// subjectHash is OpenSSL's X509_NAME_hash: the first four bytes, little-endian,
// of the SHA-1 of the name's canonical form. In that form every string is
// UTF-8, in lower case, with white space trimmed and collapsed, and the outer
// SEQUENCE is left out.
func subjectHash(rawSubject []byte) (uint32, error) {
	errMalformed := errors.New("malformed name")
	input := cryptobyte.String(rawSubject)
	var name cryptobyte.String
	if !input.ReadASN1(&name, asn1.SEQUENCE) {
		return 0, errMalformed
	}
	var canonical []byte
	for !name.Empty() {
		var set, attribute, oid, value cryptobyte.String
		var tag asn1.Tag
		if !name.ReadASN1(&set, asn1.SET) || !set.ReadASN1(&attribute, asn1.SEQUENCE) || !set.Empty() ||
			!attribute.ReadASN1Element(&oid, asn1.OBJECT_IDENTIFIER) || !attribute.ReadAnyASN1(&value, &tag) {
			return 0, errMalformed
		}
		if tag != asn1.UTF8String && tag != asn1.PrintableString && tag != asn1.IA5String {
			return 0, fmt.Errorf("name holds a string of type %d", tag)
		}
		var b cryptobyte.Builder
		b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddBytes(oid)
				b.AddASN1(asn1.UTF8String, func(b *cryptobyte.Builder) {
					b.AddBytes([]byte(strings.Join(strings.Fields(asciiLower(string(value))), " ")))
				})
			})
		})
		text, err := b.Bytes()
		if err != nil {
			return 0, err
		}
		canonical = append(canonical, text...)
	}
	sum := sha1.Sum(canonical) //nolint:gosec // see the import
	return binary.LittleEndian.Uint32(sum[:4]), nil
}

// asciiLower lowers A to Z only, as OpenSSL does.
func asciiLower(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
}
