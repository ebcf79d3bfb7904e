#!/usr/bin/env bash
# Prints the folder of the environment that drives a browser, and builds it where there is none:
# seconds, 130 MB. The browser itself is the machine's Chromium, installed from the distribution
# (Debian) as root where it is missing. `--where` builds nothing.
set -euo pipefail
if [[ ${1:-} != --where ]] && ! command -v chromium >/dev/null; then
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        {
            apt-get update -qq
            apt-get install -qq --yes --no-install-recommends -o DPkg::Lock::Timeout=300 chromium
        } >&2
    else
        echo "no Chromium here. Install it as root: apt-get install chromium" >&2
        exit 1
    fi
fi
exec "$(dirname "$0")/cached.sh" browser "$@"
