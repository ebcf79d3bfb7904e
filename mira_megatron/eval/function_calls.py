"""Calls a function of an untrusted program in the sandbox and brings back plain values.

The right answers stay here: the sandbox is given inputs only, and what comes back is compared by the
caller. Values are read as data (in_sandbox/plain_values.py), never unpickled.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from mira_megatron.eval.in_sandbox import plain_values
from mira_megatron.eval.sandbox.contract import Job, Limits, Outcome, Sandbox

LOAD_SECONDS = 20.0  # for a program to define its functions
_START_SECONDS = 10.0  # for the sandbox and the interpreter
_IN_SANDBOX = Path(plain_values.__file__).parent
_OUT_OF_TIME = tuple(-number for number in (signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU))
_SYSTEM_PYTHON = Path("/usr/bin/python3")


class CallStatus(StrEnum):
    """How a call ended."""

    VALUE = "value"
    RAISED = "raised"
    TIMED_OUT = "timed out"
    DIED = "died"  # the process ended before the call did: exit, a signal, out of memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What one call came to. Calls after the first that gave no value were not made."""

    status: CallStatus
    value: Any = None
    seconds: float = 0.0  # of CPU time
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Called:
    """The calls of every group, and what the sandbox says of the whole."""

    groups: tuple[tuple[Call, ...], ...]
    outcome: Outcome


def call_function(
    sandbox: Sandbox,
    program: str,
    function: str,
    groups: Sequence[Sequence[Sequence[Any]]],
    seconds: Sequence[Sequence[float]],
    limits: Limits,
    *,
    stops_at_failure: bool = True,
) -> Called:
    """Returns what `function` of `program` makes of every group's inputs.

    `seconds` bounds the CPU time of each call; `limits.wall_seconds` all calls together, to which the time to start is
    added. A group ends with its first call without a value, and so do the groups after it if
    `stops_at_failure`.
    """
    request = {
        "program": program,
        "function": function,
        "groups": [[plain_values.encode(list(call)) for call in group] for group in groups],
        "seconds": [list(group) for group in seconds],
        "load_seconds": LOAD_SECONDS,
        "stops_at_failure": stops_at_failure,
    }
    python, read_only = _interpreter()
    job = Job(
        argv=(str(python), "-B", "-s", "-S", "call_functions.py"),
        files=_scripts(),
        stdin=json.dumps(request).encode(),
        limits=replace(limits, wall_seconds=limits.wall_seconds + _START_SECONDS),
        read_only=read_only,
        # Gold and samples must see a set of strings in the same order.
        environment={"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
    )
    outcome = sandbox.run(job)
    if outcome.exit_code != 0 and not outcome.is_timed_out and not outcome.is_out_of_memory:
        # What makes the calls has died itself: this machine had no process left to give, or the
        # program killed it. The second time it was the program.
        outcome = sandbox.run(job)
    read = _Results(outcome)
    return Called(
        groups=tuple(read.calls_of(number, len(group)) for number, group in enumerate(groups)),
        outcome=outcome,
    )


class _Results:
    """The results descriptor's lines, by group; what is no line of ours is left out."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._lines: dict[int, list[dict[str, Any]]] = {}
        self._ends: dict[int, int] = {}
        for line in outcome.results.splitlines():
            try:
                entry = json.loads(line)
                group = int(entry["group"])
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            if "status" in entry:
                self._ends[group] = int(entry["status"])
            else:
                self._lines.setdefault(group, []).append(entry)

    def calls_of(self, group: int, num_calls: int) -> tuple[Call, ...]:
        """Returns the calls up to and including the first without a value."""
        calls: list[Call] = []
        for entry in self._lines.get(group, ()):
            if len(calls) == num_calls:
                break
            if "raised" in entry:
                return (*calls, Call(status=CallStatus.RAISED, detail=str(entry["raised"])[:80]))
            if entry.get("call") != len(calls) or "value" not in entry:
                return (*calls, Call(status=CallStatus.DIED, detail="answers out of order"))
            try:
                value = plain_values.decode(entry["value"])
                seconds = float(entry["seconds"])
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                return (*calls, Call(status=CallStatus.DIED, detail=f"no value: {error}"[:80]))
            calls.append(Call(status=CallStatus.VALUE, value=value, seconds=seconds))
        if len(calls) < num_calls:
            calls.append(self._end_of(group))
        return tuple(calls)

    def _end_of(self, group: int) -> Call:
        status = self._ends.get(group)
        if self._outcome.is_timed_out or status in _OUT_OF_TIME:
            return Call(status=CallStatus.TIMED_OUT)
        if self._outcome.is_out_of_memory:
            return Call(status=CallStatus.DIED, detail="out of memory")
        if self._outcome.num_result_bytes > len(self._outcome.results):
            return Call(status=CallStatus.DIED, detail="too many bytes of answers")
        if status is None:
            said = ascii(self._outcome.stderr[-80:].decode(errors="replace"))
            return Call(status=CallStatus.DIED, detail=f"nothing more was heard: {said}")
        return Call(status=CallStatus.DIED, detail=f"the process ended (status {status})")


@cache
def _scripts() -> dict[str, bytes]:
    names = ("plain_values.py", "call_functions.py")
    return {name: (_IN_SANDBOX / name).read_bytes() for name in names}


def _interpreter() -> tuple[Path, tuple[Path, ...]]:
    """Returns a Python that a sandbox can see, and the folders it needs beside /usr."""
    if _SYSTEM_PYTHON.exists():
        return _SYSTEM_PYTHON, ()
    base = Path(sys.base_prefix)
    return base / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}", (base,)
