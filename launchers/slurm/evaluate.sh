#!/bin/bash
# Have one model answer a suite's benchmarks: a vLLM server and `mira evaluate`, as one job.
#
#   MIRA_MODEL=runs/code50b/instruct/mira_group/hf sbatch --gpus-per-node=8 --cpus-per-task=64 \
#       launchers/slurm/evaluate.sh eval/suites/mira9.yaml --style chat --output eval/mira_group
#   mira evaluate eval/suites/mira9.yaml --output eval/mira_group --grade-only    # on CPUs, afterwards
#
# No program is run here: GPUs would idle. Grade in a job on CPUs with the second line, or with
# grade_array.sh. Answers that are there are not asked for again, so the same command goes on.
#
# Put your site's options where lines below begin with ##SBATCH (one sign too many), or say them on
# sbatch's command line, which counts for more. `mira` and `vllm` are those on PATH: activate their
# environment before sbatch, which hands the environment on. One node. Variables:
#
#   MIRA_MODEL          a Hugging Face folder; needed
#   MIRA_NAME           what the answers call it; unset: MIRA_MODEL
#   MIRA_SERVER_WORDS   more words for `vllm serve`, split at blanks: "--tensor-parallel-size 8"
#   MIRA_PORT           of the server, on this node alone; unset: 8000
#   MIRA_SERVER_SECONDS how long it may take to come up; unset: 1800
#
# The job ends with the server stopped: badly where the server dies or never comes up. Told to end
# before its time limit, or preempted with a warning, it goes back into the queue.
#SBATCH --job-name=mira-evaluate
##SBATCH --partition=YOUR_PARTITION
##SBATCH --account=YOUR_ACCOUNT
##SBATCH --time=04:00:00
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=mira-evaluate-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
set -uo pipefail

if [ "$#" -eq 0 ] || [ -z "${MIRA_MODEL:-}" ] || [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "usage: MIRA_MODEL=FOLDER sbatch [options] launchers/slurm/evaluate.sh SUITE --output DIR ..." >&2
    exit 2
fi
name=${MIRA_NAME:-$MIRA_MODEL}
port=${MIRA_PORT:-8000}
read -r -a server_words <<<"${MIRA_SERVER_WORDS:-}"
server='' asking='' is_told=''

is_there() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

is_up() {
    local line=''
    { exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET /health HTTP/1.0\r\n\r\n' >&3 &&
        read -r line <&3; } 2>/dev/null
    exec 3>&-
    [[ $line == *' 200 '* ]]
}

end() {
    # What was answered is kept when `mira` is told to end; then the server may go.
    for process in "$asking" "$server"; do
        if is_there "$process"; then
            kill -TERM "$process"
            wait "$process"
        fi
    done
}

fail() {
    echo "$1" >&2
    end
    exit 1
}

put_back() {
    end
    # One that is being cancelled is left to SLURM.
    if scontrol show job "$SLURM_JOB_ID" --oneliner | grep -q ' JobState=RUNNING '; then
        echo "told to end: back into the queue" >&2
        scontrol requeue "$SLURM_JOB_ID" || echo "it cannot be put back: send it again" >&2
    fi
    exit 75
}

trap 'is_told=1' TERM USR1
vllm serve "$MIRA_MODEL" --served-model-name "$name" --host 127.0.0.1 --port "$port" \
    ${server_words[@]+"${server_words[@]}"} &
server=$!
SECONDS=0
until is_up; do
    [ -z "$is_told" ] || put_back
    is_there "$server" || fail "the server ended before it was up"
    [ "$SECONDS" -lt "${MIRA_SERVER_SECONDS:-1800}" ] || fail "the server is not up after $SECONDS s"
    sleep 1
done
mira evaluate "$@" --endpoint "http://127.0.0.1:$port/v1" --model "$name" --generate-only &
asking=$!
while is_there "$asking"; do
    [ -z "$is_told" ] || put_back
    is_there "$server" || fail "the server ended while it was asked"
    sleep 1
done
wait "$asking"
code=$?
end
exit "$code"
