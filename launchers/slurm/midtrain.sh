#!/bin/bash
# Mid-train one run's arms on what each selected, as one job.
#
#   MIRA_ONLY=arm sbatch --cpus-per-task=16 launchers/slurm/midtrain.sh RECIPE [key=value ...]
#
# Who trains is the recipe's choice (midtrain.trainer):
#
#   megatron_core  one process on one node
#   bridge         recipes/midtrain.py, with midtrain.config, on nodes of 8 GPUs each, as many as
#                  the config's name says. `mira` is that of an environment with Megatron-Bridge
#                  (docs/midtraining.md).
#                  sbatch --nodes=8 --gpus-per-node=8 --cpus-per-task=128 ...
#
# Put your site's options where lines below begin with ##SBATCH (one sign too many), or say them on
# sbatch's command line, which counts for more. `mira` is the one on PATH: activate its environment
# before sbatch, which hands the environment on. Run folder and recipe lie where all nodes see them.
# Variables:
#
#   MIRA_ONLY          one arm; unset: all, one after another
#   MIRA_MAX_FAILURES  attempts that may fail before it is not run again; unset: 2
#
# Before the time limit, and when it is preempted with a warning, the job is told to end: it saves
# and goes back into the queue. `scancel --signal=USR1 JOB` does the same. It ends well only when
# the stage is done; what is done is not done again, so the same command goes on from there.
#SBATCH --job-name=mira-midtrain
##SBATCH --partition=YOUR_PARTITION
##SBATCH --account=YOUR_ACCOUNT
##SBATCH --time=24:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=mira-midtrain-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@300
set -uo pipefail

stage=midtrain
if [ "$#" -eq 0 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "usage: sbatch [options] launchers/slurm/midtrain.sh RECIPE [key=value ...]" >&2
    exit 2
fi
words=("$@" --stage "$stage" --max-failures "${MIRA_MAX_FAILURES:-2}")
[ -z "${MIRA_ONLY:-}" ] || words+=("--only=$MIRA_ONLY")

# A job that was sent from an array's element is none itself.
unset "${!SLURM_ARRAY_@}"
# From SLURM 22.05 on a step has one CPU per task, whatever the job was given, unless it is told.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
MIRA_HEAD_NODE=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MIRA_HEAD_NODE

# Signals are for `mira job`, whose end is waited for. Nodes end by what the first one says, each in
# its own time: one may be saving. --wait is for those whom nobody tells, since it was killed.
trap '' TERM USR1
code=0
srun --kill-on-bad-exit=0 --wait=120 \
    mira job "${words[@]}" --workers "$SRUN_CPUS_PER_TASK" || code=$?

# 75: not finished, run me again; 138: told to end before it could say so.
if [ "$code" -ne 75 ] && [ "$code" -ne 138 ]; then exit "$code"; fi
# One that is being cancelled, or put back by SLURM itself, is left to it.
if scontrol show job "$SLURM_JOB_ID" --oneliner | grep -q ' JobState=RUNNING '; then
    echo "not finished: back into the queue" >&2
    scontrol requeue "$SLURM_JOB_ID" || echo "it cannot be put back: send it again" >&2
fi
exit 75
