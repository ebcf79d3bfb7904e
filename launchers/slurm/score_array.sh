#!/bin/bash
# Score one run with the elements of a SLURM array: every element claims parts until none is left.
#
#   sbatch --array=0-7 launchers/slurm/score_array.sh RECIPE [key=value ...]
#
# Give it your own options for partition, account, time, CPUs and GPUs on that command line. Run
# folder and recipe lie on a file system that all nodes see. `mira` is the one on PATH: activate its
# environment before sbatch, which hands the environment on.
#
# Who answers is the recipe's choice (score.engine), since ratings are told apart by it:
#
#   engine: vllm       every element loads the model on its own GPUs; nothing else has to run. What
#                      we recommend on SLURM. `mira` is that of an environment with vLLM.
#                      sbatch --array=0-7 --gpus-per-task=1 --cpus-per-task=8 ...
#   engine: endpoint   servers answer, and elements need no GPU. Where they have come up is known
#                      only then, and may be said instead of score.endpoints:
#                      MIRA_ENDPOINTS="http://node1:8000/v1 http://node2:8000/v1" sbatch ...
#                      (not of groups that the recipe gives endpoints of their own)
#
# MIRA_STAGE=label has the teacher asked in the same way.
#
# An element may end early (no part is left for it), be killed or cancelled: the same command again
# does what `mira score RECIPE --missing` shows, with as many elements as you like.
#SBATCH --job-name=mira-score
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --output=mira-score-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
set -euo pipefail

if [ "$#" -eq 0 ]; then
    echo "usage: sbatch --array=0-7 launchers/slurm/score_array.sh RECIPE [key=value ...]" >&2
    exit 2
fi
stage=${MIRA_STAGE:-score}
words=("$@")
if [ -n "${MIRA_ENDPOINTS:-}" ]; then
    section=score
    [ "$stage" != label ] || section=teacher
    set -f # the list is taken apart at its blanks, and not looked up as file names
    # shellcheck disable=SC2206 # as is meant here
    urls=($MIRA_ENDPOINTS)
    words+=("$section.endpoints=[$(IFS=, && printf '%s' "${urls[*]}")]")
fi
# From SLURM 22.05 on a step has one CPU per task, whatever the job was given, unless it is told.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
# An element of several tasks goes on with those that are left: parts are claimed by workers.
exec srun --kill-on-bad-exit=0 \
    mira "$stage" "${words[@]}" --share --workers "$SRUN_CPUS_PER_TASK"
