"""Small jobs for the tests of sandboxes and of what runs in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mira_megatron.eval.sandbox.contract import Job, Limits
from mira_megatron.eval.sandbox.interpreter import system_interpreter

LIMITS = Limits(
    wall_seconds=30,
    cpu_seconds=20,
    memory_bytes=256 << 20,
    output_bytes=10_000,
    num_processes=16,
    file_bytes=1 << 20,
    num_open_files=32,
)


def python_job(
    program: str,
    *,
    limits: Limits = LIMITS,
    stdin: bytes = b"",
    files: Mapping[str, bytes] | None = None,
    read_only: tuple[Path, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Job:
    """Returns a job that runs the program with the system's Python."""
    interpreter = system_interpreter()
    return Job(
        argv=(*interpreter.command, "program.py"),
        files={"program.py": program.encode(), **(files or {})},
        stdin=stdin,
        limits=limits,
        read_only=interpreter.read_only + read_only,
        environment=environment or {},
    )


def limited(**changes: float) -> Limits:
    """Returns the limits of these tests with some changed."""
    return replace(LIMITS, **changes)  # type: ignore[arg-type]
