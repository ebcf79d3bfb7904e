"""Runs an untrusted Python program on one input after another; what it prints is compared outside.

The sandbox is given inputs and never sees what ought to be printed. Every run is a process of its
own, with its own limit in CPU seconds, so that a busy machine changes no verdict; one sandbox does
for many runs.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import cache
from pathlib import Path

from mira_megatron.eval import in_sandbox
from mira_megatron.eval.sandbox.contract import Limits, Outcome, Sandbox
from mira_megatron.eval.sandbox.interpreter import Interpreter, system_interpreter
from mira_megatron.eval.sandbox.script_job import script_job

_SCRIPT = Path(in_sandbox.__file__).parent / "run_on_inputs.py"
_START_SECONDS = 10.0  # for the sandbox, the interpreter and the modules
_WAITING_FACTOR = 10  # wall seconds per CPU second allowed, for a machine that is shared
_OUTPUT_BYTES = 1 << 26  # of one run; more is an OSError in the program


class RunStatus(StrEnum):
    """How a run ended."""

    ENDED = "ended"  # exit code 0
    FAILED = "failed"  # another exit code: what it raised was not caught
    TIMED_OUT = "timed out"
    DIED = "died"  # by a signal, out of memory, or nothing was heard of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run. Runs after the first that did not end well were not made."""

    status: RunStatus
    stdout: str = ""
    seconds: float = 0.0  # of CPU time
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """The runs in the order of their inputs, and what the sandbox says of the whole."""

    runs: tuple[Run, ...]
    outcome: Outcome


def run_on_inputs(
    sandbox: Sandbox,
    program: str,
    inputs: Sequence[str],
    *,
    cpu_seconds: int,
    wait_seconds: float | None = None,
    limits: Limits,
    modules: Sequence[str] = (),
    interpreter: Interpreter | None = None,
) -> Runs:
    """Returns what the program does with each input, up to the first that it does not end well on.

    `cpu_seconds` bounds each run, and so does `wait_seconds` on the wall clock, by default ten
    times as many; `limits.output_bytes` what all runs print together, as JSON. `modules` are loaded
    once, before the first run.
    """
    interpreter = interpreter or system_interpreter()
    request = {
        "program": program,
        "inputs": list(inputs),
        "modules": list(modules),
        "cpu_seconds": cpu_seconds,
        "wait_seconds": wait_seconds or cpu_seconds * _WAITING_FACTOR,
        "output_bytes": min(_OUTPUT_BYTES, limits.file_bytes),
    }
    longer = replace(limits, wall_seconds=limits.wall_seconds + _START_SECONDS)
    job = script_job(interpreter, _SCRIPT.name, _scripts(), request, longer)
    outcome = sandbox.run(job)
    return Runs(runs=_runs(outcome, len(inputs), cpu_seconds), outcome=outcome)


def is_same_printed(printed: str, expected: str) -> bool:
    """Returns whether two outputs are the same under LiveCodeBench's rule.

    Both are stripped, and so is each line. Lines are equal as text, or as one decimal number per
    word: 1.50 is 1.5, but 0.1 + 0.2 is not 0.3.
    """
    lines, expected_lines = _lines(printed), _lines(expected)
    return len(lines) == len(expected_lines) and all(map(_is_same_line, lines, expected_lines))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _is_same_line(line: str, expected: str) -> bool:
    if line == expected:
        return True
    try:
        return [Decimal(word) for word in line.split()] == [
            Decimal(word) for word in expected.split()
        ]
    except InvalidOperation:  # no number; or sNaN, which equals nothing and says so
        return False


def _runs(outcome: Outcome, num_inputs: int, cpu_seconds: int) -> tuple[Run, ...]:
    runs: list[Run] = []
    for line in outcome.results.splitlines():
        if len(runs) == num_inputs:
            break
        try:
            entry = json.loads(line)
            status, seconds = int(entry["status"]), float(entry["seconds"])
            said = str(entry["said"])
            stdout, is_late = str(entry["stdout"]), bool(entry["is_late"])
        except (ValueError, TypeError, KeyError, RecursionError):
            break  # cut off
        is_out_of_cpu = status == -signal.SIGXCPU or (
            status == -signal.SIGKILL and seconds >= cpu_seconds
        )
        if status == 0:
            runs.append(Run(status=RunStatus.ENDED, stdout=stdout, seconds=seconds))
        elif is_late or is_out_of_cpu:
            return (*runs, Run(status=RunStatus.TIMED_OUT, seconds=seconds))
        else:
            kind = RunStatus.FAILED if status > 0 else RunStatus.DIED
            ended = f"exit code {status}" if status > 0 else f"signal {-status}"
            last = ascii(said.strip().rpartition("\n")[2])[1:-1]
            return (*runs, Run(status=kind, seconds=seconds, detail=f"{ended}: {last}"[:120]))
    if len(runs) < num_inputs:
        runs.append(_end_of(outcome))
    return tuple(runs)


def _end_of(outcome: Outcome) -> Run:
    """Returns the run that nothing was heard of."""
    if outcome.is_timed_out:
        return Run(status=RunStatus.TIMED_OUT)
    if outcome.is_out_of_memory:
        return Run(status=RunStatus.DIED, detail="out of memory")
    if outcome.num_result_bytes > len(outcome.results):
        return Run(status=RunStatus.DIED, detail="it printed too much")
    said = ascii(outcome.stderr[-80:].decode(errors="replace"))
    return Run(status=RunStatus.DIED, detail=f"nothing more was heard: {said}")


@cache
def _scripts() -> dict[str, bytes]:
    return {_SCRIPT.name: _SCRIPT.read_bytes()}
