"""Calls a function of an untrusted program on groups of inputs, each in a process of its own.

The right answers stay here: the sandbox is given inputs only, and what comes back is plain data
(sandbox/values.py) that the caller compares. Whatever the program does to the processes inside, it
can only answer for itself.

Time limits are per call and in CPU seconds, so that a busy machine changes no verdict.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from mira_megatron.eval import in_sandbox
from mira_megatron.eval.sandbox import values
from mira_megatron.eval.sandbox.contract import Limits, Outcome, Sandbox
from mira_megatron.eval.sandbox.interpreter import Interpreter, system_interpreter
from mira_megatron.eval.sandbox.script_job import script_job

LOAD_SECONDS = 20.0  # for a program to define its functions
_START_SECONDS = 10.0  # for the sandbox and the interpreter
_OUT_OF_TIME = tuple(-number for number in (signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU))
_SCRIPT = Path(in_sandbox.__file__).parent / "call_groups.py"


class CallStatus(StrEnum):
    """How a call ended."""

    VALUE = "value"
    RAISED = "raised"
    TIMED_OUT = "timed out"
    DIED = "died"  # the process ended before the call did: exit, a signal, out of memory


class Unserialisable:
    """Stands for a value that is no plain data: it is not None, and equal to nothing."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{self.type_name}>"


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


def call_groups(
    sandbox: Sandbox,
    program: str,
    function: str,
    groups: Sequence[Sequence[Sequence[Any]]],
    seconds: Sequence[Sequence[float]],
    limits: Limits,
    interpreter: Interpreter | None = None,
) -> Called:
    """Returns what `function` of `program` makes of every group's inputs.

    `seconds` bounds the CPU time of each call; `limits.wall_seconds` all calls together, to which
    the time to start is added. A group ends with its first call without a value; then no group
    after it is begun.
    """
    request = {
        "program": program,
        "function": function,
        "groups": [[values.encode(list(call)) for call in group] for group in groups],
        "seconds": [list(group) for group in seconds],
        "load_seconds": LOAD_SECONDS,
    }
    interpreter = interpreter or system_interpreter()
    longer = replace(limits, wall_seconds=limits.wall_seconds + _START_SECONDS)
    job = script_job(interpreter, _SCRIPT.name, _scripts(), request, longer)
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
            if entry.get("call") != len(calls):
                return (*calls, Call(status=CallStatus.DIED, detail="answers out of order"))
            try:
                value = _value_of(entry)
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
    return {path.name: path.read_bytes() for path in (Path(values.__file__), _SCRIPT)}


def _value_of(entry: dict[str, Any]) -> Any:
    """Returns the value of a line. Raises KeyError or ValueError where it has none."""
    if "unserialisable" in entry:
        return Unserialisable(str(entry["unserialisable"])[:80])
    return values.decode(str(entry["value"]))
