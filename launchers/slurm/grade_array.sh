#!/bin/bash
# Grade one file of predictions with the elements of a SLURM array: CPUs only, every element every
# N-th task.
#
#   job=$(sbatch --parsable --array=0-7 --cpus-per-task=16 launchers/slurm/grade_array.sh \
#       eval/suites/mira9.yaml --benchmark mbpp --predictions samples.jsonl --output graded/mbpp \
#       --data-folder data/eval --cache graded/cache)
#   sbatch --dependency=afterok:$job --wrap 'mira grade ... (the same words)'
#
# Give it your own options for partition, account, time and memory on that command line. Output and
# cache lie on a file system that all nodes see. `mira` is the one on PATH: activate its environment
# before sbatch, which hands the environment on.
#
# Elements write verdicts and no score. The same words to `mira grade`, without this script, put
# them together afterwards, and grade what no element got to: a killed element loses nothing but
# time. MIRA_WORDS="swe run" has containers of SWE-bench shared out in the same way, on nodes with an
# engine for them, with the words of `mira swe run`.
#
# --array is 0-LAST, since every element must know how many there are. To send some of them again,
# say how many there were: MIRA_NUM_SHARDS=8 sbatch --array=3,5 ...
#SBATCH --job-name=mira-grade
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --output=mira-grade-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
set -euo pipefail

if [ "$#" -eq 0 ]; then
    echo "usage: sbatch --array=0-7 launchers/slurm/grade_array.sh SUITE --benchmark NAME ..." >&2
    exit 2
fi
if [ -z "${MIRA_NUM_SHARDS:-}" ]; then
    if [ "${SLURM_ARRAY_TASK_MIN:-1}" != 0 ] ||
        [ "$((SLURM_ARRAY_TASK_MAX + 1))" != "$SLURM_ARRAY_TASK_COUNT" ]; then
        echo "expected --array=0-LAST, or MIRA_NUM_SHARDS to say how many shards there are" >&2
        exit 2
    fi
    MIRA_NUM_SHARDS=$SLURM_ARRAY_TASK_COUNT
fi
read -r -a command <<<"${MIRA_WORDS:-grade}"
# From SLURM 22.05 on a step has one CPU per task, whatever the job was given, unless it is told.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
exec srun mira "${command[@]}" "$@" --shard "$SLURM_ARRAY_TASK_ID/$MIRA_NUM_SHARDS" \
    --workers "$SRUN_CPUS_PER_TASK"
