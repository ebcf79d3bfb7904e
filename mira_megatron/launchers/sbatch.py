"""The text of a job's batch script, and the words that submit it. Pure: nothing is run or written.

A user's words stand in the text as bash quotes them, or not at all: lines of `#SBATCH`, which SLURM
reads with rules of its own, hold only what cluster.py has checked, and the path of the log.

The script starts `mira job` with srun, hands on the signal that comes before the time limit or a
preemption, and puts the job back in the queue where `mira job` says that it is not finished.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from mira_megatron.launchers.cluster import Cluster
from mira_megatron.launchers.job_file import SCRIPT, JobFile
from mira_megatron.launchers.job_graph import PlannedJob

NOT_FINISHED = 75  # EX_TEMPFAIL, as `mira job` says it: run me again
# Variables that a job has beside those of the cluster's allow-list: without them neither `mira` nor
# the programs it starts are found.
_ALWAYS_HANDED_ON = ("HOME", "LANG", "PATH", "USER")

# Of a step whose first process has ended: the others end their ranks or servers, and say why.
_WAIT_SECONDS = 120

_BODY = """\
set -uo pipefail
cd -- {folder} || exit 2
# From SLURM 22.05 on a step has one CPU per task, whatever the job was given, unless it is told.
export SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-1}}
MIRA_HEAD_NODE=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MIRA_HEAD_NODE
{alone}# An element by its place: the last one's own number is also that of the whole array.
this=$SLURM_JOB_ID
if [ -n "${{SLURM_ARRAY_TASK_ID:-}}" ]; then
    this=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
fi
{rest}
# Both signals reach `mira job` as SIGUSR1: srun hands that on, but ends the step at a SIGTERM.
stopping=
signalled=
step=
stop() {{
    stopping=1
    signalled=1
    [ -z "$step" ] || kill -USR1 "$step" 2>/dev/null
}}
trap stop TERM USR1

# Nodes end by what the head says, each in its own time: one may be saving. --wait is for those whom
# nobody tells, since the first to end was killed.
srun --export=ALL --kill-on-bad-exit=0 --wait={wait}{container} \\
    {command} &
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
if [ -n "$stopping" ] && [ "$code" -gt 128 ]; then code={not_finished}; fi
if [ "$code" -ne {not_finished} ]; then exit "$code"; fi

# One that is being cancelled, or put back by SLURM itself, is left to it.
if scontrol show job "$this" --oneliner | grep -q ' JobState=RUNNING '; then
    echo "not finished: back into the queue" >&2
    scontrol requeue "$this" || echo "job $this cannot be put back: submit it again" >&2
fi
exit {not_finished}
"""

# A job that is no element has these only where it was sent from inside of one.
_ALONE = 'unset "${!SLURM_ARRAY_@}"\n'
# Who cancels an array wants its work to end, and not to be done by one node. Its controller forgets
# a job after a while (MinJobAge); accounting, where there is any, does not. No grep -q: of many
# elements the rest would not be read, which ends what writes it, and so the pipe, with an error.
_REST = """\
before=${SLURM_JOB_DEPENDENCY:-}
case $before in
*afterany:*)
    before=${before##*afterany:}
    before=${before%%[!0-9]*}
    if scontrol show job "$before" --oneliner 2>/dev/null |
        grep ' JobState=CANCELLED ' >/dev/null ||
        sacct -nXj "$before" --format=State 2>/dev/null | grep CANCELLED >/dev/null; then
        echo "array $before was cancelled, so what it left is not done: mira submit sends it" >&2
        exit 2
    fi
    ;;
esac
"""


def sbatch_script(job: PlannedJob, file: JobFile, cluster: Cluster, folder: Path) -> str:
    """Returns the script of a job; `folder` is the working directory that `mira` was called in.

    Raises ValueError for a path that cannot be written there, or that no mount shows to containers.
    """
    for path in (file.path, file.recipe, folder):
        _check_path(path, cluster, job.stage)
    needs = job.needs
    log = "log-%A_%a.txt" if job.elements else "log-%j.txt"
    handed_on = sorted({*_ALWAYS_HANDED_ON, *cluster.environment})
    options = [
        f"--job-name=mira-{job.name}",
        *(_given("partition", needs.partition), _given("account", cluster.account)),
        *(_given("qos", cluster.qos), _given("reservation", cluster.reservation)),
        f"--nodes={needs.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={needs.cpus}",
        f"--gpus-per-node={needs.gpus}" if needs.gpus else "",
        f"--time={needs.time}",
        f"--array=0-{job.elements - 1}" if job.elements else "",
        f'"--output={str(file.folder).replace("%", "%%")}/{log}"',
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{cluster.requeue_signal_seconds}",
        "--kill-on-invalid-dep=yes" if job.after_ok or job.after_any else "",
        f"--export={','.join(handed_on)}",
        *cluster.extra_sbatch,
    ]
    lines = [
        "#!/bin/bash",
        "# Written by `mira submit`, which writes it anew; `sbatch` takes it by hand, too.",
        *(f"#SBATCH {option}" for option in options if option),
    ]
    words = [*cluster.command(job.stage), "job", str(file.path)]
    body = _BODY.format(
        folder=shlex.quote(str(folder)),
        container="".join(f" {word}" for word in _step_options(cluster, job.stage, folder)),
        command=_quoted([*_container(cluster, job, folder), *words]),
        not_finished=NOT_FINISHED,
        alone="" if job.elements else _ALONE,
        rest=_REST if job.is_rest else "",
        # First the stage is ended and then the servers, each with as long as it may take.
        wait=_WAIT_SECONDS + (2 * file.server.stop_seconds if file.server else 0),
    )
    return "\n".join(lines) + "\n" + body


def sbatch_words(script: Path, job: PlannedJob, ids: Mapping[str, str]) -> list[str]:
    """Returns the words that submit a script; `ids` holds SLURM's number of jobs sent or waiting.

    Jobs without a number are done, and not waited for.
    """
    words = ["sbatch", "--parsable"]
    kinds = {"afterok": job.after_ok, "afterany": job.after_any}
    waits = [
        f"{kind}:{':'.join(ids[name] for name in names if name in ids)}"
        for kind, names in kinds.items()
        if any(name in ids for name in names)
    ]
    if waits:
        words.append(f"--dependency={','.join(waits)}")
    return [*words, str(script)]


def by_hand(
    jobs: Sequence[PlannedJob], folders: Mapping[str, Path], in_queue: Mapping[str, str]
) -> str:
    """Returns lines of shell that submit every script by hand; each job's number has a variable.

    `in_queue` holds the numbers of jobs that need not be sent.
    """
    variables = {job.name: f"job_{number}" for number, job in enumerate(jobs, start=1)}
    # Behind a semicolon sbatch names the cluster where there are several.
    sent = {name: f"${{{variable}%%;*}}" for name, variable in variables.items()}
    ids = {**in_queue, **sent}
    lines = []
    for job in jobs:
        *words, script = sbatch_words(folders[job.name] / SCRIPT, job, ids)
        # Words hold our own variables, which are to be put in, and are quoted for that.
        quoted = " ".join(f'"{word}"' if "$" in word else word for word in words)
        lines.append(f"{variables[job.name]}=$({quoted} {shlex.quote(script)})")
    return "\n".join(lines)


def _given(option: str, value: str) -> str:
    return f"--{option}={value}" if value else ""


def _quoted(words: list[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _step_options(cluster: Cluster, stage: str, folder: Path) -> list[str]:
    """Returns, quoted, what srun is told of the container (pyxis)."""
    image = cluster.image(stage)
    if cluster.container_runtime != "pyxis" or not image:
        return []
    mounts = ",".join(mount if ":" in mount else f"{mount}:{mount}" for mount in cluster.mounts)
    options = [f"--container-image={image}", f"--container-workdir={folder}"]
    if mounts:
        options.append(f"--container-mounts={mounts}")
    if cluster.environment:  # else an image's own value of a variable would count
        options.append(f"--container-env={','.join(cluster.environment)}")
    return [shlex.quote(option) for option in options]


def _container(cluster: Cluster, job: PlannedJob, folder: Path) -> list[str]:
    """Returns the words before `mira` that put it into a container (apptainer)."""
    image = cluster.image(job.stage)
    if cluster.container_runtime != "apptainer" or not image:
        return []
    words = ["apptainer", "exec", "--pwd", str(folder)]
    if job.needs.gpus:
        words.append("--nv")
    for mount in cluster.mounts:
        words += ["--bind", mount]
    return [*words, image]


def _check_path(path: Path, cluster: Cluster, stage: str) -> None:
    text = str(path)
    if not text.isprintable() or '"' in text or "\\" in text:
        raise ValueError(
            f"{text!r}: a batch script's options cannot hold this path. Use one without quotes, "
            "backslashes and control characters"
        )
    if cluster.container_runtime == "none" or not cluster.image(stage):
        return
    parts = [mount.split(":") for mount in cluster.mounts]
    shown = [Path(part[0]) for part in parts if len(part) == 1 or part[0] == part[1]]
    if not any(path.is_relative_to(mount) for mount in shown):
        raise ValueError(
            f"cluster {cluster.name}: {path} is not seen in the container of {stage}: `mounts` "
            "must show it at the same path"
        )
