#!/bin/sh
# Installs mitmproxy below the user's cache, for `make bench` to compare with. Without it the bench leaves it out and says so.
set -eu
venv=${XDG_CACHE_HOME:-$HOME/.cache}/rootcell/bench/mitmproxy
[ -n "${MITMDUMP:-}" ] && exit 0
[ -x "$venv/bin/mitmdump" ] && exit 0
command -v mitmdump >/dev/null && exit 0
echo "+ python3 -m venv $venv && pip install mitmproxy"
if ! { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet 'mitmproxy>=11,<13'; }; then
	rm -rf "$venv"
	echo "bench: mitmproxy cannot be installed here; the run goes on without it" >&2
fi
