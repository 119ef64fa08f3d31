// Package image builds the guests' images from the distribution's packages and
// keeps them in a cache. A build has two parts with a key each: the Debian root
// (kernel, agent disk, tools), which depends on the recipe alone, and the two
// initramfs, which also hold this project's binaries. A rebuilt binary costs a
// new initramfs, not a new root.
//
// The builder runs as root and as an ordinary user with subordinate ids.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Options is what Build makes. GuestBinary and FirewallBinary are required.
type Options struct {
	Suite string // Debian suite; empty means DefaultSuite
	Arch  string // amd64 or arm64; empty means the host's

	GuestBinary    string // path of rootcell-guest, static, for Arch
	FirewallBinary string // path of rootcell-firewall, static, for Arch

	CacheDir string     // empty means DefaultCacheDir
	Progress func(Step) // may be nil; calls are never concurrent
}

// Step is a line of progress.
type Step struct {
	Text    string // participle and object: "building the Debian root"
	Done    bool   // the step ended; Elapsed and Bytes are its own
	Elapsed time.Duration
	Bytes   int64 // size of what it made, 0 for unknown
}

// Set is the files of a complete pair of guests. All are read-only for users.
type Set struct {
	ID             string // changes with any file's content
	Kernel         string
	FirewallInitrd string
	AgentInitrd    string
	AgentImage     string // raw ext4 root disk, a provider's read-only base
}

// DefaultSuite is the host's own suite when it is a Debian that the recipe was
// tried with, and bookworm elsewhere.
func DefaultSuite() string {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return suites[0]
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[key] = strings.Trim(value, `"`)
		}
	}
	if values["ID"] == "debian" && slices.Contains(suites, values["VERSION_CODENAME"]) {
		return values["VERSION_CODENAME"]
	}
	return suites[0]
}

// DefaultCacheDir is rootcell/images in the user's cache directory.
func DefaultCacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory: %w", err)
	}
	return filepath.Join(dir, "rootcell", "images"), nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Suite == "" {
		o.Suite = DefaultSuite()
	}
	if !slices.Contains(suites, o.Suite) {
		return o, fmt.Errorf("building images of Debian %q: the recipe knows %s; choose one of them", o.Suite, strings.Join(suites, " and "))
	}
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	if o.Arch != "amd64" && o.Arch != "arm64" {
		return o, fmt.Errorf("building images for %q: only amd64 and arm64 guests exist", o.Arch)
	}
	if o.CacheDir == "" {
		dir, err := DefaultCacheDir()
		if err != nil {
			return o, err
		}
		o.CacheDir = dir
	}
	if o.Progress == nil {
		o.Progress = func(Step) {}
	}
	return o, nil
}

// Build returns a complete set, making what the cache does not have. It waits
// for another build in the same cache. When it is cancelled or killed, what was
// complete stays and the next call goes on from there.
func Build(ctx context.Context, o Options) (Set, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Set{}, err
	}
	rootKey, err := o.rootKey()
	if err != nil {
		return Set{}, err
	}
	initrdKey, err := o.initrdKey(rootKey)
	if err != nil {
		return Set{}, err
	}
	c, err := openCache(ctx, o.CacheDir, func() { o.Progress(Step{Text: "waiting for another image build"}) })
	if err != nil {
		return Set{}, err
	}
	defer c.close()

	root, ok := c.entry(rootPrefix + rootKey)
	if !ok {
		if err := Missing(); err != nil {
			return Set{}, err
		}
		if root, err = c.make(rootPrefix+rootKey, func(dir string) error { return o.buildRoot(ctx, c, rootKey, dir) }); err != nil {
			return Set{}, diskFull(err, o.CacheDir)
		}
	}
	initrd, ok := c.entry(initrdPrefix + initrdKey)
	if !ok {
		if initrd, err = c.make(initrdPrefix+initrdKey, func(dir string) error { return o.buildInitrds(root, dir) }); err != nil {
			return Set{}, diskFull(err, o.CacheDir)
		}
	}
	return Set{
		ID:             rootKey + "-" + initrdKey,
		Kernel:         filepath.Join(root, kernelName),
		AgentImage:     filepath.Join(root, agentImageName),
		FirewallInitrd: filepath.Join(initrd, firewallInitrdName),
		AgentInitrd:    filepath.Join(initrd, agentInitrdName),
	}, nil
}

// rootKey is over everything that the Debian root is made from, except what
// the mirror has today: a cached root stays until it is pruned.
func (o Options) rootKey() (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, "root", recipeVersion, o.Suite, o.Arch, agentPackages, excludes, maskedUnits, lazyUnits, sources(o.Suite), gitConfig(o.Suite),
		commonModules, firewallModules, commonPrograms, firewallPrograms)
	err := eachRootFile(func(name string, text []byte) error {
		fmt.Fprintln(h, name, len(text))
		_, err := h.Write(text)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading the recipe: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// initrdKey is over the root and the binaries.
func (o Options) initrdKey(rootKey string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, "initrd", recipeVersion, rootKey)
	for _, name := range []string{o.GuestBinary, o.FirewallBinary} {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("opening a guest's binary: %w; run `make build`", err)
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", fmt.Errorf("reading %q: %w", name, err)
		}
		fmt.Fprintln(h)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// step runs do as a step of progress and reports the size of what it made.
func (o Options) step(text string, made string, do func() error) error {
	o.Progress(Step{Text: text})
	start := time.Now()
	if err := do(); err != nil {
		return err
	}
	done := Step{Text: text, Done: true, Elapsed: time.Since(start)}
	if info, err := os.Stat(made); err == nil && info.Mode().IsRegular() {
		done.Bytes = info.Size()
	}
	o.Progress(done)
	return nil
}

// diskFull gives a full disk a text that says what to do.
func diskFull(err error, dir string) error {
	if isNoSpace(err) {
		return fmt.Errorf("%w; the disk of %q is full: make %d MiB free, or run `rootcell image prune`", err, dir, needBytes>>20)
	}
	return err
}

func isNoSpace(err error) bool {
	return errors.Is(err, errNoSpace) || strings.Contains(err.Error(), "No space left on device")
}
