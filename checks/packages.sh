#!/bin/sh
# Installs the Debian packages that the tests need and that are missing, with one visible apt-get line.
# What a cell needs, `rootcell doctor --fix` installs.
# Usage: packages.sh SET...
set -eu

missing=
for set in "$@"; do
	case $set in
	# What cells need, so that the machine tests run.
	cell) packages="qemu-system-x86 qemu-utils mmdebstrap uidmap e2fsprogs ca-certificates" ;;
	# Real clients, real servers, namespaces and a C compiler for the race detector.
	test) packages="gcc libc6-dev iproute2 nftables curl openssl git openssh-client openssh-server dnsutils socat python3 python3-grpcio python3-websockets nodejs nghttp2-client nginx-light apt-utils tmux rsync zsh fish iputils-ping procps util-linux" ;;
	# What `make bench` needs besides: load generators, the servers, and the peers to compare with.
	bench) packages="wrk nghttp2-client dnsperf dnsmasq-base nginx-light python3-venv" ;;
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

sudo=
if [ "$(id -u)" -ne 0 ]; then
	sudo="sudo "
fi
line="${sudo}apt-get update -q && ${sudo}apt-get install -y --no-install-recommends$missing"
if [ -n "$sudo" ] && [ -t 0 ]; then
	printf 'rootcell: these packages are missing. Run\n  %s\nnow? [y/N] ' "$line"
	read -r answer
	case $answer in y | Y | yes) ;; *) exit 1 ;; esac
fi
echo "+ $line"
export DEBIAN_FRONTEND=noninteractive
eval "$line"
