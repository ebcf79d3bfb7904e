"""Statements on SQLite files, run in the sandbox; rows come back as plain values.

What is right stays here: the sandbox sees statements and databases, and gold statements run in jobs
of their own. Time is counted in CPU seconds, so that a busy machine changes no verdict.
"""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from mira_megatron.eval import in_sandbox
from mira_megatron.eval.sandbox.contract import Job, Limits, Outcome, Sandbox, SandboxError
from mira_megatron.eval.sandbox.interpreter import system_interpreter

_SCRIPT = Path(in_sandbox.__file__).parent / "run_statements.py"
_START_SECONDS = 10.0  # for the sandbox and the interpreter
# Wall seconds of a statement on a machine that is busy with others: CPU seconds decide.
_WAITING_FACTOR, _WAITING_SECONDS = 20, 60
_OUT_OF_TIME = {
    -signal.SIGPROF: "CPU time, within one step",
    -signal.SIGXCPU: "CPU time of its process",
    -signal.SIGALRM: "wall clock",
}
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class BadText:
    """A value that SQLite calls text and that is no UTF-8."""

    content: bytes


Value = None | int | float | str | bytes | BadText
Row = tuple[Value, ...]


class Ending(StrEnum):
    """How a statement ended."""

    ROWS = "rows"
    ERROR = "error"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"  # more rows or bytes than are compared
    DIED = "died"  # its process ended before it did


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """What one statement returned from one database."""

    ending: Ending
    rows: tuple[Row, ...] = ()
    num_columns: int = 0
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StatementLimits:
    """What one statement may use."""

    cpu_seconds: float = 30.0  # BIRD's, there in wall seconds (docs/sql.md)
    max_rows: int = 1_000_000
    max_bytes: int = 64 * _MIB  # of all rows as they are written out
    max_value_bytes: int = 10_000_000
    memory_bytes: int = 4096 * _MIB

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class Executed:
    """The statements of one job in their order, and what the sandbox says of the whole."""

    executions: tuple[Execution, ...]
    outcome: Outcome


@dataclass(kw_only=True, slots=True)
class _Heard:
    """What the results descriptor said of one statement."""

    rows: list[Row] = field(default_factory=list)
    end: dict[str, Any] | None = None
    status: int | None = None


@cache
def sqlite_version() -> str:
    """Returns the version of SQLite that statements are run by. Raises ValueError without one."""
    interpreter = system_interpreter()
    words = [interpreter.path, "-I", "-c", "import sqlite3; print(sqlite3.sqlite_version)"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    if said.returncode != 0:
        raise ValueError(
            f"{interpreter.path} has no sqlite3: {said.stderr.strip()[-200:]}. Install Python with "
            "SQLite (Debian: apt-get install python3)"
        )
    return said.stdout.strip()


def execute(
    sandbox: Sandbox, statements: Sequence[tuple[Path, str]], limits: StatementLimits
) -> Executed:
    """Returns what each statement makes of its database, run in one sandbox one after the other.

    A statement that ran out of time is not run on the databases that follow. Raises SandboxError
    where the sandbox could not be built or has another SQLite than this machine.
    """
    job = _job(statements, limits)
    outcome = sandbox.run(job)
    if outcome.exit_code != 0 and not outcome.is_timed_out and not outcome.is_out_of_memory:
        # What starts the statements has died itself: this machine had no process left to give. The
        # second time it was a statement.
        outcome = sandbox.run(job)
    heard = _heard(outcome.results, len(statements))
    executions = tuple(_execution(of_statement, outcome) for of_statement in heard)
    return Executed(executions=executions, outcome=outcome)


def _job(statements: Sequence[tuple[Path, str]], limits: StatementLimits) -> Job:
    seconds = _WAITING_FACTOR * limits.cpu_seconds + _WAITING_SECONDS
    request = {
        "statements": [[str(path), statement] for path, statement in statements],
        "cpu_seconds": limits.cpu_seconds,
        "wall_seconds": seconds,
        "max_rows": limits.max_rows,
        "max_bytes": limits.max_bytes,
        "max_value_bytes": limits.max_value_bytes,
    }
    interpreter = system_interpreter()
    return Job(
        argv=(*interpreter.command, _SCRIPT.name),
        files={_SCRIPT.name: _script()},
        stdin=json.dumps(request).encode(),
        limits=Limits(
            wall_seconds=_START_SECONDS + len(statements) * seconds,
            cpu_seconds=int(2 * limits.cpu_seconds) + 2,
            memory_bytes=limits.memory_bytes,
            output_bytes=len(statements) * limits.max_bytes + _MIB,
            num_processes=8,
            file_bytes=512 * _MIB,  # SQLite sorts large results in files below /tmp
            num_open_files=64,
        ),
        read_only=(*interpreter.read_only, *sorted({path for path, _ in statements})),
    )


def _heard(results: bytes, num_statements: int) -> list[_Heard]:
    """Returns what was written of each statement; what is no line of ours is left out.

    Raises SandboxError where another SQLite wrote it.
    """
    heard = [_Heard() for _ in range(num_statements)]
    for line in results.splitlines():
        try:
            entry = json.loads(line)
            if "sqlite" in entry:
                _check_version(str(entry["sqlite"]))
                continue
            of_statement = heard[int(entry["statement"])]
            if "rows" in entry:
                of_statement.rows.extend(tuple(map(value_of, row)) for row in entry["rows"])
            elif "end" in entry:
                of_statement.end = entry
            else:
                of_statement.status = int(entry["status"])
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            continue
    return heard


def _execution(heard: _Heard, outcome: Outcome) -> Execution:
    if heard.end is None:
        return _unfinished(heard, outcome)
    try:
        ending = Ending(heard.end["end"])
        detail = ascii(str(heard.end["detail"]))[1:-1][:160]
        columns = int(heard.end.get("columns", 0))
    except (ValueError, TypeError, KeyError, OverflowError):
        return Execution(ending=Ending.DIED, detail="an end that is none of ours")
    if ending is not Ending.ROWS:
        return Execution(ending=ending, detail=detail)
    if any(len(row) != columns for row in heard.rows):
        return Execution(ending=Ending.DIED, detail="rows of several widths")
    return Execution(ending=ending, rows=tuple(heard.rows), num_columns=columns)


def _unfinished(heard: _Heard, outcome: Outcome) -> Execution:
    if heard.status in _OUT_OF_TIME:
        return Execution(ending=Ending.TIMEOUT, detail=_OUT_OF_TIME[heard.status])
    if outcome.is_timed_out:
        return Execution(ending=Ending.TIMEOUT, detail="wall clock")
    if outcome.is_out_of_memory or heard.status == -signal.SIGKILL:
        return Execution(ending=Ending.DIED, detail="out of memory")
    if heard.status is None:
        said = ascii(outcome.stderr[-80:].decode(errors="replace"))[1:-1]
        return Execution(ending=Ending.DIED, detail=f"nothing was heard of it: {said}")
    return Execution(ending=Ending.DIED, detail=f"its process ended (status {heard.status})")


def value_of(written: Any) -> Value:
    """Returns the value that JSON stands for. Raises ValueError for what stands for none."""
    match written:
        case None | int() | float() | str():
            return written
        case {"text": str() as content}:
            return BadText(base64.b64decode(content, validate=True))
        case {"blob": str() as content}:
            return base64.b64decode(content, validate=True)
    raise ValueError(f"no value: {ascii(written)[:40]}")


def written_value(value: Value) -> object:
    """Returns what JSON holds for a value."""
    match value:
        case BadText():
            return {"text": base64.b64encode(value.content).decode()}
        case bytes():
            return {"blob": base64.b64encode(value).decode()}
    return value


def _check_version(version: str) -> None:
    if version != sqlite_version():
        raise SandboxError(
            f"the sandbox runs SQLite {version}, but verdicts would say {sqlite_version()}, which "
            "is that of this machine's python3: use an image with the same version, or bubblewrap"
        )


@cache
def _script() -> bytes:
    return _SCRIPT.read_bytes()
