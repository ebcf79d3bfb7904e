#!/usr/bin/env bash
# Prints the folder of the vllm environment, and builds it first where there is none (3.4 GB).
exec "$(dirname "$0")/cached.sh" vllm "$@"
