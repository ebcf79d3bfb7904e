#!/bin/bash
# Score one run with the elements of a SLURM array: every element claims parts until none is left.
#
#   sbatch --array=0-7 launchers/slurm/score_array.sh recipes/mine.yaml [key=value ...]
#
# Give it your own options for partition, account, time and GPUs on that command line. Run folder
# and recipe lie on a file system that all nodes see. `mira` is the one on PATH: activate its
# environment before sbatch, which hands the environment on.
#
# An element may end early (no part is left for it) or be killed: the same command again does what
# `mira score RECIPE --missing` shows. The number of elements may be another one then.
#SBATCH --job-name=mira-score
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --output=mira-score-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
set -euo pipefail

if [ "$#" -eq 0 ]; then
    echo "usage: sbatch --array=0-7 $0 RECIPE [key=value ...]" >&2
    exit 2
fi
exec srun --kill-on-bad-exit=1 mira "${MIRA_STAGE:-score}" "$@" --share
