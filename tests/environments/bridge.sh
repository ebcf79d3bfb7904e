#!/usr/bin/env bash
# Prints the folder of the Megatron-Bridge environment, and builds it where there is none: minutes,
# 2 GB. `--where` builds nothing.
exec "$(dirname "$0")/cached.sh" bridge "$@"
