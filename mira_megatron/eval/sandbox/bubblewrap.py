"""The bubblewrap sandbox: own user, process, network, IPC and mount namespaces, no capability.

Nothing of the host's files is seen but /usr, a few tables of /etc without which compilers are "not
found", and what the job names, all read-only. /work, /tmp and /dev/shm are memory of bounded size
that goes away with the job; the rest, / and /dev too, cannot be written.

Limits are set inside the user namespace: there the kernel counts the processes of this one job.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

from mira_megatron.eval.sandbox.contract import Job, Outcome, SandboxError
from mira_megatron.eval.sandbox.launch import Command, launching_user, run_command
from mira_megatron.eval.sandbox.started import (
    SEARCH_PATH,
    first_process,
    job_environment,
    outcome_of,
)

MIN_VERSION = (0, 8)  # the first with --disable-userns
_SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Debian's compilers are links through these, or read their settings from them.
_ETC = ("alternatives", "ld.so.cache", "java-*", "mono", "php")


class BubblewrapSandbox:
    """Runs jobs with the machine's bwrap."""

    def __init__(self, level: int = 3) -> None:
        self.level = level

    def run(self, job: Job) -> Outcome:
        """Returns what the job did; raises SandboxError where bwrap could not set it up."""
        with ExitStack() as stack:
            files = {
                name: _in_memory(stack, content).fileno() for name, content in job.files.items()
            }

            def render(results: int, status: int) -> Command:
                return Command(
                    argv=bubblewrap_argv(job, files, results, status, host_mounts()),
                    environment={"PATH": SEARCH_PATH},
                    inherited=tuple(files.values()),
                    root_pid=_child_of,
                )

            try:
                ended = run_command(job, render)
            except OSError as error:
                raise SandboxError(f"bwrap could not be started: {error}") from error
        is_killed = ended.is_timed_out or ended.is_out_of_memory
        if not is_killed and b"exit-code" not in ended.status:
            said = bytes(ended.stderr.kept[-2000:]).decode(errors="replace").strip()
            raise SandboxError(f"bwrap did not start {job.argv[0]}: {said or 'killed'}{_hint(job)}")
        return outcome_of(ended, self.level)


def bubblewrap_argv(
    job: Job,
    files: Mapping[str, int],
    results: int,
    status: int,
    mounts: Sequence[str],
) -> list[str]:
    """Returns the command that runs the job; `files` gives the descriptor of each one's content."""
    size = ["--size", str(job.limits.file_bytes), "--tmpfs"]
    return [
        "bwrap",
        *("--unshare-all", "--unshare-user", "--disable-userns", "--uid", "65534"),
        *("--gid", "65534", "--cap-drop", "ALL", "--die-with-parent", "--new-session"),
        *("--as-pid-1", "--hostname", "sandbox", "--json-status-fd", str(status), "--clearenv"),
        *_each("--setenv", job_environment(job, results).items()),
        *mounts,
        *("--proc", "/proc", "--dev", "/dev", *size, "/dev/shm", "--remount-ro", "/dev"),
        *(*size, "/tmp", *size, "/work"),
        # Behind them: what a job names may lie on the host in a folder that has the same name.
        *_each("--ro-bind", ((str(path), str(path)) for path in job.read_only)),
        *_each("--file", ((str(files[name]), f"/work/{name}") for name in files)),
        *("--chdir", "/work", "--remount-ro", "/", "--"),
        *first_process(job, num_other_processes=1),
    ]


def host_mounts() -> list[str]:
    """Returns the part of the command that shows this machine's programs."""
    words = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM_LINKS:
        path = Path("/", name)
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    for pattern in _ETC:
        for path in sorted(Path("/etc").glob(pattern)):
            words += ["--ro-bind", str(path), str(path)]
    return words


def missing_bubblewrap() -> str | None:
    """Returns why bwrap cannot be used here; None where a usable one is installed."""
    command = shutil.which("bwrap")
    if command is None:
        return "bwrap is not installed (Debian: apt-get install bubblewrap)"
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    numbers = re.findall(r"\d+", said.stdout)
    if tuple(map(int, numbers[:2])) < MIN_VERSION:
        return (
            f"{command} is {said.stdout.strip() or 'of no known release'}, 0.8 or later is needed"
        )
    return None


def _hint(job: Job) -> str:
    if not job.read_only or launching_user() is None:
        return ""
    return (
        ". As root, sandboxes are started as nobody, who must be able to read "
        f"{', '.join(map(str, job.read_only))}: put it outside /root, or run as an ordinary user"
    )


def _each(option: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [word for pair in pairs for word in (option, *pair)]


def _in_memory(stack: ExitStack, content: bytes) -> FileIO:
    """Returns a file without a name that holds the content, to be read from its start."""
    file = stack.enter_context(FileIO(os.memfd_create("mira-job"), "r+"))
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]
    file.seek(0)
    return file


def _child_of(pid: int, status: bytes) -> int | None:
    """Returns process 1 of the sandbox, as bwrap's first status line tells it."""
    first, newline, _ = status.partition(b"\n")
    return int(json.loads(first)["child-pid"]) if newline else None
