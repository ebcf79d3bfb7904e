#!/usr/bin/env bash
# Prints the folder of the environment that drives a browser, and builds it where there is none:
# seconds, 130 MB. The browser itself is the machine's Chromium. `--where` builds nothing.
exec "$(dirname "$0")/cached.sh" browser "$@"
