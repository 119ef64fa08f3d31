package image

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

// recipeVersion changes when the builder makes something else of the same
// packages and files.
const recipeVersion = "2"

// rootFiles are the files that every agent's root has besides its packages.
//
//go:embed all:rootfs
var rootFiles embed.FS

// Suites that the recipe was tried with.
var suites = []string{"bookworm", "trixie"}

// agentPackages make a comfortable Debian for a coding agent. npm is not among
// them: Debian's pulls hundreds of small packages in; `apt install npm` and
// corepack are there for who wants them.
var agentPackages = strings.Fields(`
	systemd systemd-sysv dbus libpam-systemd udev kmod e2fsprogs nftables
	sudo openssh-server openssh-client openssh-sftp-server
	git curl wget ca-certificates
	python3 python3-venv python3-pip nodejs build-essential
	iproute2 iputils-ping bind9-dnsutils netcat-openbsd
	bash-completion less vim-tiny nano tmux rsync jq ripgrep
	procps psmisc file xz-utils zstd unzip zip
`)

// excludes keep what nobody reads in a disposable machine out of the root.
var excludes = []string{
	"path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright",
	"path-exclude=/usr/share/man/*", "path-exclude=/usr/share/info/*",
	"path-exclude=/usr/share/locale/*", "path-include=/usr/share/locale/locale.alias",
	"path-exclude=/usr/share/lintian/*",
}

// maskedUnits cost time at every start, or reach for a network that is not
// there, and do nothing for a machine of this kind. Each can be unmasked.
var maskedUnits = strings.Fields(`
	systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket
	systemd-udev-trigger.service systemd-udev-settle.service systemd-hwdb-update.service
	systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service
	systemd-network-generator.service systemd-timesyncd.service
	getty.target getty@tty1.service serial-getty@ttyS0.service serial-getty@ttyAMA0.service
	systemd-pstore.service systemd-random-seed.service systemd-update-utmp.service
	systemd-update-utmp-runlevel.service systemd-machine-id-commit.service
	systemd-firstboot.service systemd-update-done.service systemd-journal-catalog-update.service
	systemd-journal-flush.service ldconfig.service kmod-static-nodes.service systemd-tmpfiles-setup-dev.service
	systemd-modules-load.service systemd-binfmt.service systemd-boot-system-token.service
	systemd-ask-password-wall.path systemd-ask-password-console.path
	dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount
	sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service
	fstrim.timer man-db.timer systemd-tmpfiles-clean.timer rsync.service
`)

// lazyUnits are started when something asks for them, not at boot.
var lazyUnits = []string{"usr/lib/systemd/system/multi-user.target.wants/systemd-logind.service"}

// enabledUnits are started at boot; WantedBy is sysinit.target for all.
var enabledUnits = map[string]string{
	"ssh.service":            "/lib/systemd/system/ssh.service",
	"rootcell-power.service": "/etc/systemd/system/rootcell-power.service",
}

// sources is the guest's package source. It is HTTPS: the firewall lets no
// cleartext HTTP through.
func sources(suite string) string {
	const stanza = "Types: deb\nURIs: https://deb.debian.org/%s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
	return fmt.Sprintf(stanza, "debian", suite+" "+suite+"-updates") + "\n" +
		fmt.Sprintf(stanza, "debian-security", suite+"-security")
}

// gitConfig is the system's Git configuration, empty for none. libcurl 7.88.1 of
// bookworm corrupts HTTP/2 uploads when the receiver is slow (pushSize in
// internal/e2e has the figures), so that pushes would fail now and then.
func gitConfig(suite string) string {
	if suite != "bookworm" {
		return ""
	}
	return "# This libcurl breaks large uploads over HTTP/2.\n[http]\n\tversion = HTTP/1.1\n"
}

// kernelPackage is the metapackage that depends on the newest kernel for
// virtual machines.
func kernelPackage(arch string) string { return "linux-image-cloud-" + arch }

// Kernel modules that the two initramfs load, before their dependencies are
// added. Names that a kernel has built in are passed over; it must have the
// required ones in either way.
var (
	commonModules   = strings.Fields("virtio_pci virtio_mmio virtio_blk virtio_net virtio_rng virtio_balloon qemu_fw_cfg ext4 evdev button")
	requiredModules = strings.Fields("virtio_pci virtio_blk virtio_net qemu_fw_cfg ext4 nf_tables nft_ct")
	firewallModules = strings.Fields("nf_tables nft_ct nft_chain_nat nft_nat nft_redir nft_reject_inet nft_limit nft_log nft_counter nft_objref nf_log_syslog nft_fib_inet")
)

// Programs that the initramfs carry, with the libraries they are linked to.
var (
	commonPrograms   = []string{"usr/sbin/e2fsck"}
	firewallPrograms = []string{"usr/sbin/nft", "usr/sbin/mke2fs"}
)

// eachRootFile calls do for every embedded file with its path in the guest.
func eachRootFile(do func(name string, text []byte) error) error {
	return fs.WalkDir(rootFiles, "rootfs", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := rootFiles.ReadFile(name)
		if err != nil {
			return err
		}
		return do(strings.TrimPrefix(name, "rootfs/"), text)
	})
}
