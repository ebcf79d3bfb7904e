#!/usr/bin/env bash
# Prints the folder of the Ray environment, and builds it where there is none: a minute, 1 GB.
# `--where` builds nothing.
exec "$(dirname "$0")/cached.sh" ray "$@"
