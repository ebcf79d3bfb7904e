#!/usr/bin/env bash
# Installs what programs of models are graded with where it is missing, from the distribution
# (Debian) and for TypeScript from npm: minutes, as root. Says what is missing where it cannot.
#
#   eval.sh             bubblewrap, and the compilers and interpreters of all languages
#   eval.sh --sandbox   bubblewrap alone: seconds
set -euo pipefail

typescript=5.5.4 # the release that published MultiPL-E results were made with
javatuples=/usr/share/java/javatuples.jar

missing() {
    local command
    for command in bwrap prlimit; do
        command -v "$command" >/dev/null || echo "$command"
    done
    [[ ${1:-} != --sandbox ]] || return 0
    for command in python3 g++ javac java node tsc php mcs mono bash bc; do
        command -v "$command" >/dev/null || echo "$command"
    done
    [[ -f $javatuples ]] || echo "$javatuples"
    [[ -f /usr/include/boost/any.hpp ]] || echo boost/any.hpp
    [[ -f /usr/include/openssl/md5.h ]] || echo openssl/md5.h
    compgen -G '/usr/lib/mono/*/System.Numerics.dll' >/dev/null || echo System.Numerics.dll
}

packages=(bubblewrap util-linux)
if [[ ${1:-} != --sandbox ]]; then
    packages+=(
        python3 g++ libboost-dev libssl-dev openjdk-17-jdk-headless libjavatuples-java php-cli
        bc mono-mcs mono-runtime libmono-system-numerics4.0-cil
    )
    # A nodejs from elsewhere may bring its own npm, and then does not go with the distribution's.
    command -v node >/dev/null || packages+=(nodejs)
    command -v npm >/dev/null || command -v tsc >/dev/null || packages+=(npm)
fi

[[ -n $(missing "$@") ]] || exit 0
if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    {
        apt-get update -qq
        apt-get install -qq --yes --no-install-recommends -o DPkg::Lock::Timeout=300 \
            "${packages[@]}"
        if [[ ${1:-} != --sandbox ]] && ! command -v tsc >/dev/null; then
            npm install --global --prefix /usr/local --no-audit --no-fund "typescript@$typescript"
        fi
    } >&2
fi
if [[ -n $(missing "$@") ]]; then
    echo "not all of it is here, missing:" $(missing "$@") >&2
    echo "install it as root: apt-get install ${packages[*]}" >&2
    [[ ${1:-} == --sandbox ]] || echo "and: npm install --global typescript@$typescript" >&2
    exit 1
fi
