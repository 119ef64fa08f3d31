#!/bin/sh
# Installs the Debian packages that the given sets need and that are missing, with one visible apt-get line.
# Usage: packages.sh build|test...
set -eu

missing=
for set in "$@"; do
	case $set in
	# What `make cell` needs on the host; `rootcell doctor` names the same packages one by one.
	build) packages="qemu-system-x86 qemu-utils mmdebstrap uidmap e2fsprogs openssh-client ca-certificates" ;;
	# What the tests need besides: real clients, real servers, namespaces and a C compiler for the race detector.
	test) packages="gcc libc6-dev iproute2 nftables curl openssl git openssh-server dnsutils socat python3 nodejs tmux rsync bash zsh fish" ;;
	*) echo "packages.sh: unknown set $set" >&2; exit 2 ;;
	esac
	case $(dpkg --print-architecture) in
	arm64) packages=$(echo "$packages" | sed 's/qemu-system-x86/qemu-system-arm/') ;;
	esac
	for package in $packages; do
		case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true) in
		*"ok installed") continue ;;
		esac
		# A tool that came from elsewhere (another Node.js, say) will do as well.
		case $package in
		nodejs) command -v node >/dev/null && continue ;;
		esac
		missing="$missing $package"
	done
done
[ -n "$missing" ] || exit 0

line="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" -ne 0 ]; then
	line="sudo $line"
	if [ -t 0 ]; then
		printf 'rootcell: these packages are missing. Run\n  %s\nnow? [y/N] ' "$line"
		read -r answer
		case $answer in y | Y | yes) ;; *) exit 1 ;; esac
	fi
fi
echo "+ $line"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # the line is a list of words
if ! $line; then
	echo "+ ${line%%apt-get*}apt-get update"
	${line%%apt-get*}apt-get update && $line
fi
