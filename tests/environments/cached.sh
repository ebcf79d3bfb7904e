#!/usr/bin/env bash
# Prints the folder of the environment NAME, and builds it first where there is none.
#
#   cached.sh NAME            builds requirements/NAME.txt where it is missing: some minutes, some GB
#   cached.sh NAME --where    builds nothing; the folder may not exist
#
# It lies outside the clone, under a hash of its lock file, so that every clone and branch with the
# same lock shares one. It gets its name when it is complete: a folder of that name can be used.
# MIRA_PYTHON names the Python to build it with.
set -euo pipefail
cd "$(dirname "$0")/../.."

name=$1
python=${MIRA_PYTHON:-python3}
lock=requirements/$name.txt
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
hash=$({ cat "$lock"; echo "$version"; } | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mira-megatron
folder=$cache/$name-$hash

if [[ ${2:-} != --where && ! -d $folder ]]; then
    mkdir -p "$cache"
    exec 9>"$cache/$name-$hash.lock"
    flock 9 # a second builder waits for the first, and then finds it done
    if [[ ! -d $folder ]]; then
        rm -rf "$cache/.$name-$hash."* # of a builder that was killed: no other holds the lock
        building=$(mktemp -d "$cache/.$name-$hash.XXXXXX")
        trap 'rm -rf "$building"' EXIT
        pip() { "$building/bin/python" -m pip --disable-pip-version-check -qq "$@" >&2; }
        "$python" -m venv "$building"
        # CPU builds of torch have an index of their own; a mirror may have them beside the rest.
        if torch=$(grep '^torch==' "$lock"); then
            pip install --no-deps "$torch" 2>/dev/null || pip install --no-deps "$torch" \
                --index-url https://download.pytorch.org/whl/cpu
        fi
        pip install --no-deps --requirement "$lock"
        chmod 755 "$building"
        mv --no-target-directory "$building" "$folder"
        trap - EXIT
    fi
fi
echo "$folder"
