#!/bin/bash
# Written by `mira submit`, which writes it anew; `sbatch` takes it by hand, too.
#SBATCH --job-name=mira-distill
#SBATCH --partition=gpu
#SBATCH --account=my-lab
#SBATCH --qos=long
#SBATCH --reservation=res-1
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=128
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH "--output=/work/runs/code50b/jobs/distill/log-%j.txt"
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@600
#SBATCH --export=HF_HOME,HOME,LANG,NCCL_IB_HCA,PATH,TEACHER_KEY,USER
#SBATCH --exclude=node-07
set -uo pipefail
cd -- /work/clone || exit 2
# From SLURM 22.05 on a step has one CPU per task, whatever the job was given, unless it is told.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
MIRA_HEAD_NODE=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MIRA_HEAD_NODE
unset "${!SLURM_ARRAY_@}"
# An element by its place: the last one's own number is also that of the whole array.
this=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    this=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
fi

# Both signals reach `mira job` as SIGUSR1: srun hands that on, but ends the step at a SIGTERM.
stopping=
signalled=
step=
stop() {
    stopping=1
    signalled=1
    [ -z "$step" ] || kill -USR1 "$step" 2>/dev/null
}
trap stop TERM USR1

# Nodes end by what the head says, each in its own time: one may be saving. --wait is for those whom
# nobody tells, since the first to end was killed.
srun --export=ALL --kill-on-bad-exit=0 --wait=120 \
    apptainer exec --pwd /work/clone --nv --bind /data --bind /models --bind /work /images/mira-nemo.sqsh mira job /work/runs/code50b/jobs/distill/job.json &
step=$!
[ -z "$stopping" ] || kill -USR1 "$step" 2>/dev/null
code=127
while :; do
    signalled=
    wait "$step"
    told=$?
    [ "$told" -ne 127 ] || break # its end was told before
    code=$told
    [ -n "$signalled" ] || break # else a signal has ended the wait, and not the step
done
# Stopped before it could say so itself.
if [ -n "$stopping" ] && [ "$code" -gt 128 ]; then code=75; fi
if [ "$code" -ne 75 ]; then exit "$code"; fi

# One that is being cancelled, or put back by SLURM itself, is left to it.
if scontrol show job "$this" --oneliner | grep -q ' JobState=RUNNING '; then
    echo "not finished: back into the queue" >&2
    scontrol requeue "$this" || echo "job $this cannot be put back: submit it again" >&2
fi
exit 75
