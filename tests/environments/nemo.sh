#!/usr/bin/env bash
# Prints the folder of the NeMo 2.7 environment, and builds it where there is none: minutes, 3 GB.
# `--where` builds nothing.
exec "$(dirname "$0")/cached.sh" nemo "$@"
