"""Starts one rendered command, reads what it writes, and ends it when its time is up.

Everything is read as it comes, so that a program that floods its output neither blocks nor fills
memory. The command's end is told by its pidfd and not by its pipes: a process left behind may hold
those. Descriptors are handed over one by one, so that jobs in other threads cannot inherit them.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector

from mira_megatron.eval.sandbox.contract import Job
from mira_megatron.eval.sandbox.process_tree import tree_usage

NOBODY = 65534
# The shell that is a job's first process uses descriptors of one digit for itself.
_ABOVE_A_SHELLS = 10
_CHUNK_BYTES = 1 << 16
_LOOK_SECONDS = 0.2  # between looks at the memory of all processes
_DRAIN_SECONDS = 2.0  # for pipes that a dying process still holds
_STATUS_BYTES = 1 << 14


class Stream:
    """What came through one pipe: the first bytes of it, and how many there were."""

    def __init__(self, num_kept_bytes: int) -> None:
        self.num_kept_bytes = num_kept_bytes
        self.kept = bytearray()
        self.num_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Keeps what there is room for and counts the rest."""
        self.num_bytes += len(chunk)
        self.kept += chunk[: max(0, self.num_kept_bytes - len(self.kept))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A sandbox's way to run a job, rendered for the descriptors that it is started with."""

    argv: Sequence[str]
    environment: dict[str, str]
    inherited: tuple[int, ...] = ()  # descriptors that the command finds under the same numbers
    cwd: str = "/"
    # From the started process and what it wrote to the status pipe, the process that all of the
    # job's processes descend from; None: not known yet.
    root_pid: Callable[[int, bytes], int | None] = lambda pid, status: pid


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command ended and what it left in its pipes."""

    return_code: int  # negative: the signal that killed the started process itself
    is_timed_out: bool
    is_out_of_memory: bool
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    stdout: Stream
    stderr: Stream
    results: Stream
    status: bytes  # what the sandbox program said of itself


def launching_user() -> int | None:
    """Returns the user to start sandboxes as; None: the one who runs this.

    The kernel does not hold root to a number of processes: as root, jobs are started as nobody.
    Root of a container without other users is no root to the kernel, and cannot become nobody.
    """
    if os.geteuid() != 0:
        return None
    mapped = (line.split() for line in Path("/proc/self/uid_map").read_text().splitlines())
    has_nobody = any(int(first) <= NOBODY < int(first) + int(num) for first, _, num in mapped)
    return NOBODY if has_nobody else None


def run_command(job: Job, render: Callable[[int, int], Command]) -> Ended:
    """Returns how the command ended that `render` makes of a results and a status descriptor.

    Raises OSError where it cannot be started.
    """
    with ExitStack() as stack:
        results_in, results_out = _pipe(stack)
        status_in, status_out = _pipe(stack)
        command = render(results_out.fileno(), status_out.fileno())
        user = launching_user()
        started = time.monotonic()
        process = subprocess.Popen(
            command.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=(results_out.fileno(), status_out.fileno(), *command.inherited),
            env=command.environment,
            cwd=command.cwd,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        results_out.close()
        status_out.close()
        watch = _Watch(job, command, process, started)
        try:
            return watch.run(results_in, status_in)
        finally:
            watch.close()


def _pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    low_ends = os.pipe()
    try:
        read_end, write_end = (
            fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _ABOVE_A_SHELLS) for end in low_ends
        )
    finally:
        for end in low_ends:
            os.close(end)
    return (
        stack.enter_context(FileIO(read_end, "r")),
        stack.enter_context(FileIO(write_end, "w")),
    )


class _Watch:
    """One running command: its pipes, its clock, and its end."""

    def __init__(
        self, job: Job, command: Command, process: subprocess.Popen[bytes], started: float
    ) -> None:
        self.job = job
        self.command = command
        self.process = process
        self.started = started
        limits = job.limits
        self.stdout, self.stderr, self.results = (Stream(limits.output_bytes) for _ in range(3))
        self.status = Stream(_STATUS_BYTES)
        self.is_timed_out = False
        self.is_out_of_memory = False
        self.cpu_seconds_seen = 0.0
        self.selector = DefaultSelector()
        self.pidfd = os.pidfd_open(process.pid)
        self.is_waited_for = False

    def run(self, results_in: FileIO, status_in: FileIO) -> Ended:
        """Returns how the command ended, by itself or because it was ended."""
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for descriptor, stream in (
            (process.stdout.fileno(), self.stdout),
            (process.stderr.fileno(), self.stderr),
            (results_in.fileno(), self.results),
            (status_in.fileno(), self.status),
        ):
            os.set_blocking(descriptor, False)
            self.selector.register(descriptor, EVENT_READ, stream)
        os.set_blocking(process.stdin.fileno(), False)
        self.selector.register(process.stdin.fileno(), EVENT_WRITE, memoryview(self.job.stdin))
        self.selector.register(self.pidfd, EVENT_READ, None)
        while not self._pass_on(self._seconds_to_next_look()):
            self._look()
        wall_seconds = time.monotonic() - self.started
        # Before it is waited for: until then no other group can have this number.
        self._kill_group()
        _, wait_status, usage = os.wait4(process.pid, 0)
        self.is_waited_for = True
        process.returncode = os.waitstatus_to_exitcode(wait_status)
        self._drain()
        return Ended(
            return_code=process.returncode,
            is_timed_out=self.is_timed_out,
            is_out_of_memory=self.is_out_of_memory,
            cpu_seconds=max(usage.ru_utime + usage.ru_stime, self.cpu_seconds_seen),
            wall_seconds=wall_seconds,
            peak_bytes=usage.ru_maxrss * 1024,
            stdout=self.stdout,
            stderr=self.stderr,
            results=self.results,
            status=bytes(self.status.kept),
        )

    def close(self) -> None:
        """Ends the command if it still runs, and closes what belongs to it."""
        if not self.is_waited_for:
            self._kill_group()
            self.process.wait()
        self.selector.close()
        os.close(self.pidfd)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _seconds_to_next_look(self) -> float:
        left = self.started + self.job.limits.wall_seconds - time.monotonic()
        return min(max(left, 0.0), _LOOK_SECONDS)

    def _look(self) -> None:
        """Ends the command where its time or its memory has run out."""
        if self.is_timed_out or self.is_out_of_memory:
            return
        root = self.command.root_pid(self.process.pid, bytes(self.status.kept))
        if root is not None:
            usage = tree_usage(root)
            self.cpu_seconds_seen = max(self.cpu_seconds_seen, usage.cpu_seconds)
            self.is_out_of_memory = usage.exceeds(self.job.limits.memory_bytes)
        if not self.is_out_of_memory:
            elapsed_seconds = time.monotonic() - self.started
            self.is_timed_out = elapsed_seconds >= self.job.limits.wall_seconds
        if self.is_timed_out or self.is_out_of_memory:
            self._kill_group()

    def _kill_group(self) -> None:
        """Ends the command and what it left behind; a process namespace dies with its maker."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _pass_on(self, timeout_seconds: float) -> bool:
        """Moves what is ready through the pipes; returns True once the command has ended."""
        has_ended = False
        for key, _ in self.selector.select(timeout_seconds):
            if key.fd == self.pidfd:
                has_ended = True
                self.selector.unregister(self.pidfd)
            elif isinstance(key.data, Stream):
                self._read(key.fd, key.data)
            else:
                self._write(key.fd, key.data)
        return has_ended

    def _read(self, descriptor: int, stream: Stream) -> None:
        with suppress(BlockingIOError):
            chunk = os.read(descriptor, _CHUNK_BYTES)
            stream.add(chunk)
            if not chunk:
                self.selector.unregister(descriptor)

    def _write(self, descriptor: int, left: memoryview) -> None:
        try:
            left = left[os.write(descriptor, left[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not read its input
            left = left[:0]
        if left:
            self.selector.modify(descriptor, EVENT_WRITE, left)
        else:
            self.selector.unregister(descriptor)
            assert self.process.stdin is not None
            self.process.stdin.close()

    def _drain(self) -> None:
        """Reads what is left in the pipes, until all writers are gone."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while any(isinstance(key.data, Stream) for key in self.selector.get_map().values()):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._pass_on(left)
