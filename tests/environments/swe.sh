#!/usr/bin/env bash
# Prints the folder of the environment of SWE-bench's own grader, and builds it where there is none:
# a minute, 520 MB. `--where` builds nothing.
exec "$(dirname "$0")/cached.sh" swe "$@"
