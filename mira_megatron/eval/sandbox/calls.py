"""Calls of one Python function of a program, each with its value or what came instead.

Expected values never enter the sandbox: it is given arguments and gives values back, as plain data,
and whoever asks compares them outside. Inside are two processes. The driver records every call with
a nonce that the program cannot know; its child loads the program. A program that ends its process,
patches comparisons, reads frames or returns objects that equal everything gains nothing by it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mira_megatron.eval.sandbox.contract import CONTENDED_EXIT_CODE, Job, Limits, Outcome, Sandbox
from mira_megatron.eval.sandbox.interpreter import Interpreter, system_interpreter
from mira_megatron.eval.sandbox.values import NotAValue, decode, encode

# File in this folder -> name beside the program, which its own imports are not likely to have.
_SCRIPTS = {
    "call_driver.py": ".mira/mira_call_driver.py",
    "call_child.py": ".mira/mira_call_child.py",
    "call_frames.py": ".mira/mira_call_frames.py",
    "values.py": ".mira/mira_call_values.py",
}
# Of a record: nonce, index, and the sizes of its kind and of what follows.
_HEAD = re.compile(rb"([0-9a-f]{32}) (\d{1,9}) (\d{1,3}) (\d{1,9})\n")


class CallStatus(StrEnum):
    """What became of one call."""

    VALUE = "value"
    RAISED = "raised"  # SystemExit too
    TIMED_OUT = "timed_out"
    UNSERIALISABLE = "unserialisable"  # it returned something that is not plain data
    DIED = "died"  # the process ended in the call, or left no record of it
    NOT_LOADED = "not_loaded"  # the program raised when it was loaded, or has no such function
    NOT_RUN = "not_run"  # the program had failed too often


@dataclass(frozen=True, slots=True)
class CallResult:
    """One call: its value where the status is VALUE, else what is known of why not."""

    status: CallStatus
    value: Any = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallLimits:
    """Limits of each call, within those of the job."""

    call_seconds: float
    load_seconds: float
    answer_bytes: int = 1 << 20  # of one encoded value
    max_restarts: int = 3  # after a call that timed out or ended its process

    def __post_init__(self) -> None:
        if min(self.call_seconds, self.load_seconds, self.answer_bytes) <= 0:
            raise ValueError(f"{self} must have times and sizes above 0")
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts={self.max_restarts} must be 0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """One job that calls a function with one list of arguments after another."""

    job: Job
    nonce: str
    num_calls: int

    def results_of(self, outcome: Outcome) -> tuple[CallResult, ...]:
        """Returns one result per call, in order; DIED for each that left no record."""
        found = _records(outcome.results, self.nonce)[: self.num_calls]
        missing = "no record of it"
        if outcome.is_timed_out:
            missing = "the job ran out of time"
        elif outcome.num_result_bytes > len(outcome.results):
            missing = f"all values together take more than {len(outcome.results):,} bytes"
        lost = [CallResult(CallStatus.DIED, detail=missing)] * (self.num_calls - len(found))
        return (*found, *lost)


def prepare_calls(
    program: str,
    function: str,
    arguments: Iterable[Sequence[object]],
    *,
    limits: Limits,
    call_limits: CallLimits,
    interpreter: Interpreter | None = None,
) -> Calls:
    """Returns the job, to be run alone or by run_jobs. `arguments` has one sequence per call.

    The job's output_bytes bound all values together. Raises NotAValue for arguments that are not
    plain data (sandbox/values.py).
    """
    interpreter = interpreter or system_interpreter()
    encoded = [encode(list(values)) for values in arguments]
    nonce = secrets.token_hex(16)
    task = {
        "nonce": nonce,
        "program": program,
        "function": function,
        "calls": encoded,
        "call_seconds": call_limits.call_seconds,
        "load_seconds": call_limits.load_seconds,
        "answer_bytes": call_limits.answer_bytes,
        "max_restarts": call_limits.max_restarts,
        "contended_exit_code": CONTENDED_EXIT_CODE,
    }
    here = Path(__file__).parent
    job = Job(
        argv=(*interpreter.command, _SCRIPTS["call_driver.py"]),
        files={name: (here / script).read_bytes() for script, name in _SCRIPTS.items()},
        stdin=json.dumps(task).encode(),
        limits=limits,
        read_only=interpreter.read_only,
        environment={"PYTHONHASHSEED": "0"},
    )
    return Calls(job=job, nonce=nonce, num_calls=len(encoded))


def call_function(sandbox: Sandbox, calls: Calls) -> tuple[CallResult, ...]:
    """Runs the calls and returns one result per call, in order."""
    return calls.results_of(sandbox.run(calls.job))


def _records(content: bytes, nonce: str) -> list[CallResult]:
    """Returns the calls that were recorded in order, up to the first byte that is not a record."""
    results: list[CallResult] = []
    position = 0
    while head := _HEAD.match(content, position):
        found, index, kind_bytes, payload_bytes = head.groups()
        middle = head.end() + int(kind_bytes)
        end = middle + int(payload_bytes)
        is_next = found.decode() == nonce and int(index) == len(results)
        if not is_next or content[end : end + 1] != b"\n":
            break
        results.append(_result(content[head.end() : middle], content[middle:end]))
        position = end + 1
    return results


def _result(kind: bytes, payload: bytes) -> CallResult:
    """Returns the result that the program's own process reported, which may be anything."""
    try:
        status = CallStatus(kind.decode("ascii", "replace"))
    except ValueError:
        return CallResult(CallStatus.DIED, detail="its process sent what is no answer")
    if status is not CallStatus.VALUE:
        return CallResult(status, detail=payload.decode(errors="replace"))
    try:
        return CallResult(status, value=decode(payload))
    except NotAValue as error:
        return CallResult(CallStatus.UNSERIALISABLE, detail=str(error))
