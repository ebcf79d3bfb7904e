"""Measures what a sandbox holds on this machine, by trying to get out of it.

What a sandbox promises depends on the kernel, its settings, and how a program was installed. So the
level is granted only where every escape below it was tried and failed.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mira_megatron.eval.sandbox.contract import Job, Limits, Sandbox, SandboxError
from mira_megatron.eval.sandbox.interpreter import Interpreter, system_interpreter

_ATTEMPTS = Path(__file__).with_name("escape_attempts.py")
_NUM_PROCESSES = 16
_LIMITS = Limits(
    wall_seconds=60,
    cpu_seconds=20,
    memory_bytes=256 << 20,
    output_bytes=1 << 16,
    num_processes=_NUM_PROCESSES,
    file_bytes=1 << 20,
    num_open_files=64,
)
_NO_PRIVILEGES = f"{0:016x} 1"  # no capability, and none to be gained
LIMITS_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Escape:
    """One way out that was tried."""

    name: str
    is_stopped: bool
    level: int  # the lowest level that must stop it


def try_escapes(sandbox: Sandbox, interpreter: Interpreter | None = None) -> list[Escape]:
    """Returns every way out that was tried; raises SandboxError where nothing runs in it."""
    interpreter = interpreter or system_interpreter()
    with _bait() as bait:
        job = Job(
            argv=(*interpreter.command, "attempts.py"),
            files={"attempts.py": _ATTEMPTS.read_bytes()},
            stdin=json.dumps(bait.plan).encode(),
            limits=_LIMITS,
            read_only=interpreter.read_only,
        )
        outcome = sandbox.run(job)
        has_daemon = _end_marked(bait.token)
        has_written = any(Path(target).exists() for target in bait.plan["targets"])
        if not outcome.is_success or not outcome.results:
            raise SandboxError(
                f"the escapes could not be tried in it: exit code {outcome.exit_code}, signal "
                f"{outcome.signal}: {outcome.stderr[-500:].decode(errors='replace').strip()}"
            )
        did = json.loads(outcome.results)
    stopped_by_level = {
        1: {
            "more memory than allowed": not did["memory"],
            "a larger file than allowed": not did["file_size"],
            "more processes than allowed": did["num_forks"] <= _NUM_PROCESSES,
        },
        3: {
            "the network": not did["network"],
            "reading the host's files": not did["read"],
            "writing outside /work": not (did["write"] or has_written),
            "capabilities": did["privileges"] == _NO_PRIVILEGES,
            "the host's processes": did["process_namespace"] != os.readlink("/proc/self/ns/pid"),
            "a process left behind": not has_daemon,
        },
    }
    return [
        Escape(name, is_stopped, level)
        for level, stopped in stopped_by_level.items()
        for name, is_stopped in stopped.items()
    ]


def measured_level(promised: int, escapes: list[Escape]) -> int:
    """Returns the level that the escapes allow, up to the promised one."""
    return min([promised, *(escape.level - 1 for escape in escapes if not escape.is_stopped)])


@dataclass(frozen=True, slots=True)
class _Bait:
    token: str
    plan: dict[str, Any]


@contextmanager
def _bait() -> Iterator[_Bait]:
    """Yields things of the host that anyone on it could reach."""
    token = f"mira-escape-{secrets.token_hex(12)}"
    with (
        tempfile.TemporaryDirectory(prefix="mira-bait-") as name,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "secret").write_text(token)
        abstract.bind("\0" + token)
        abstract.listen()
        plan = {
            "token": token,
            "port": server.getsockname()[1],
            "secret": str(folder / "secret"),
            "targets": [
                str(folder / "escaped"),
                f"/dev/shm/{token}/x",
                f"/usr/{token}",
                f"/{token}",
            ],
            "memory_bytes": 2 * _LIMITS.memory_bytes,
            "file_bytes": 2 * _LIMITS.file_bytes,
            "num_forks": 4 * _NUM_PROCESSES,
        }
        yield _Bait(token, plan)


def _end_marked(token: str) -> bool:
    """Ends the processes with the token in their command; returns True where there was one."""
    was_found = False
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if token.encode() in file.read_bytes():
                was_found = True
                os.kill(int(file.parent.name), signal.SIGKILL)
    return was_found
