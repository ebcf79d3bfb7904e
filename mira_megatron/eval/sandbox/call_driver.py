"""Runs inside a sandbox: has a child load the program, and passes on what it answers.

The driver never loads the program. Its memory and descriptors are closed to the child, and the
nonce that marks its records was read from a pipe that is empty before the child starts. So a child
that ends the process, at import or in a call, ends itself, and that is what is recorded.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
sys.path.insert(0, str(_FOLDER))
# The folder is not searched by a Python that is started with -I.
from mira_call_frames import (  # type: ignore[import-not-found]  # noqa: E402
    ChannelClosed,
    receive,
    send,
)

_PR_SET_DUMPABLE = 4
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SECONDS_TO_END = 0.05  # for a child that is dying to say how
_CONTENDED_FRACTION = 0.5  # of its time that a call must have computed, to be believed too slow


def main() -> int:
    """Makes all calls and records each; the exit code tells whether one may only have waited."""
    task = json.load(sys.stdin)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
    driver = _Driver(task, int(os.environ.pop("MIRA_RESULTS_FD")))
    driver.run()
    return int(task["contended_exit_code"]) if driver.is_contended else 0


class _Driver:
    def __init__(self, task: dict[str, Any], results: int) -> None:
        self.task = task
        self.results = results
        self.num_records = 0
        self.num_failures = 0
        self.is_contended = False
        self.child: _Child | None = None

    def run(self) -> None:
        for encoded in self.task["calls"]:
            if self.num_failures > self.task["max_restarts"]:
                self.record(b"not_run\n")
                continue
            if self.child is None and not self.start():
                continue
            self.call(encoded)
        if self.child is not None:
            self.child.end()
        self.write(f"{self.task['nonce']} end {self.num_records}\n".encode())

    def start(self) -> bool:
        """Has a child load the program; where it does not, that is the call's record."""
        self.child = _Child(self.task["answer_bytes"])
        loading = {name: self.task[name] for name in ("program", "function")}
        answer = self.ask(json.dumps(loading).encode(), self.task["load_seconds"])
        if answer is None:
            return False
        if answer != b"loaded\n":
            self.record(answer)
            # It would not load the next time either.
            self.num_failures = self.task["max_restarts"] + 1
            self.child.end()
            self.child = None
        return answer == b"loaded\n"

    def call(self, encoded: str) -> None:
        answer = self.ask(encoded.encode(), self.task["call_seconds"])
        if answer is not None:
            self.record(answer)

    def ask(self, message: bytes, seconds: float) -> bytes | None:
        """Returns the child's answer; None, and the record made, where none came."""
        assert self.child is not None
        started, started_cpu_seconds = time.monotonic(), self.child.cpu_seconds()
        try:
            return self.child.ask(message, started + seconds)
        except (TimeoutError, ChannelClosed) as error:
            cpu_seconds = self.child.cpu_seconds() - started_cpu_seconds
            ended = self.child.end()
            self.child = None
            self.num_failures += 1
            if isinstance(error, ChannelClosed):
                self.record(f"died\n{ended}".encode())
            else:
                self.is_contended |= cpu_seconds < _CONTENDED_FRACTION * seconds
                self.record(f"timed_out\nafter {seconds} s, {cpu_seconds:.2f} s of CPU".encode())
            return None

    def record(self, answer: bytes) -> None:
        kind, _, payload = answer.partition(b"\n")
        head = f"{self.task['nonce']} {self.num_records} {len(kind)} {len(payload)}\n"
        self.write(head.encode() + kind + payload + b"\n")
        self.num_records += 1

    def write(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(self.results, view) :]


class _Child:
    """One process that has loaded the program, or is about to."""

    def __init__(self, answer_bytes: int) -> None:
        self.most_bytes = answer_bytes + 1024
        self.channel, others = socket.socketpair()
        with others:
            command = [sys.executable, "-I", "-B", str(_FOLDER / "mira_call_child.py")]
            self.process = subprocess.Popen(
                [*command, str(others.fileno()), str(answer_bytes)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(others.fileno(),),
                start_new_session=True,
            )

    def ask(self, message: bytes, deadline: float) -> bytes:
        self.channel.settimeout(max(0.001, deadline - time.monotonic()))
        send(self.channel, message)
        answer: bytes = receive(self.channel, self.most_bytes, deadline)
        return answer

    def cpu_seconds(self) -> float:
        """Returns what it has used so far; 0 where that cannot be told."""
        with suppress(OSError):
            fields = Path(f"/proc/{self.process.pid}/stat").read_bytes().rpartition(b")")[2].split()
            return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
        return 0.0

    def end(self) -> str:
        """Ends it and what it started; returns how it had ended if it had."""
        self.channel.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_SECONDS_TO_END)
        code = self.process.returncode
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if code is None:
            return "it closed its channel"
        return f"signal {-code}" if code < 0 else f"exit code {code}"


if __name__ == "__main__":
    sys.exit(main())
