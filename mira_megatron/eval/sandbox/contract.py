"""What a sandbox is given and gives back, whichever program builds it.

A job is a command, the files that it finds in a fresh /work, where it starts, and limits. Nothing
outlives it. What it prints is only text; what a grader believes comes through the results
descriptor, whose number is in the environment variable MIRA_RESULTS_FD, and is checked outside.

Levels of isolation, as measured on this machine (sandbox/escapes.py), not as promised:
    1  limits on resources only: no protection from a program that means harm
    3  own user, process, network and mount namespaces: bubblewrap
    4  the same inside an image of its own: Apptainer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

RESULTS_VARIABLE = "MIRA_RESULTS_FD"
DEFAULT_MIN_LEVEL = 3


class SandboxError(RuntimeError):
    """The sandbox itself could not be built; says nothing about the program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one job may use; the kernel holds them, except where a line says otherwise."""

    wall_seconds: float  # from the start of the sandbox; held by the process that started it
    cpu_seconds: int  # of each process
    memory_bytes: (
        int  # address space of each process; resident memory of all, looked at 5 times a s
    )
    output_bytes: int  # kept of each stream; the rest is read, counted and thrown away
    num_processes: int  # processes and threads at one time
    file_bytes: int  # one file; and all files together in each of /work, /tmp and /dev/shm
    num_open_files: int  # of each process

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"{name}={value} must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One command and what it is to find."""

    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)  # path below /work -> content
    stdin: bytes = b""
    limits: Limits
    read_only: tuple[Path, ...] = ()  # host paths that are seen at the same place
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.argv:
            raise ValueError("argv=() must name a program")
        for name in self.files:
            place = PurePosixPath(name)
            if place.is_absolute() or ".." in place.parts or not place.parts or "\0" in name:
                raise ValueError(f"files: {name!r} must be a path below /work, without '..'")
        for path in self.read_only:
            if not path.is_absolute():
                raise ValueError(f"read_only: {path} must be an absolute path")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a job did.

    Sandboxes report a program killed by signal N and one that exits with 128 + N alike, as killed.
    """

    exit_code: int | None  # None: killed
    signal: int | None
    is_timed_out: bool  # the wall clock ran out
    is_out_of_memory: bool  # killed for the resident memory of all its processes together
    cpu_seconds: float  # of all processes; approximate for a job that was killed
    wall_seconds: float
    peak_bytes: int | None  # resident, of the largest process; None: killed
    stdout: bytes
    stderr: bytes
    num_output_bytes: int  # all that was written to both, kept or not
    results: bytes  # what was written to the results descriptor, up to output_bytes
    num_result_bytes: int  # all that was written to it
    isolation: int  # the sandbox's level
    num_runs: int = 1  # 2: timed out with little CPU used, and was run again alone

    @property
    def is_success(self) -> bool:
        """True = it ended by itself with exit code 0."""
        return self.exit_code == 0


class Sandbox(Protocol):
    """Runs jobs, one per call; calls from several threads do not disturb each other."""

    @property
    def level(self) -> int:
        """The isolation that was measured here."""

    def run(self, job: Job) -> Outcome:
        """Returns what the job did; raises SandboxError where it could not be started."""
