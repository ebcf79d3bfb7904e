"""What gold statements return, kept by content: database, statement, SQLite and limits.

Writes  CACHE/gold/<digest>.json; a statement that ran out of time or whose process died is not
        kept, and one that asks for the day is kept for a day

Within one run, what ran out of time is not run again: it would for every sample of its task.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mira_megatron.atomic_files import write_json
from mira_megatron.eval.kept_results import DAMAGED
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.sql.execution import (
    Ending,
    Execution,
    StatementLimits,
    execute,
    sqlite_version,
    value_of,
    written_value,
)
from mira_megatron.eval.verdicts import digest

_LASTING = (Ending.ROWS, Ending.ERROR, Ending.TOO_LARGE)
_ASKS_FOR_NOW = re.compile(r"'now'|\bcurrent_(?:date|time|timestamp)\b|curdate", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldStatement:
    """A statement and the database that it is about."""

    path: Path
    database_digest: str
    statement: str


class GoldRows:
    """The rows of gold statements, from a folder that runs can share."""

    def __init__(self, cache_folder: Path, limits: StatementLimits) -> None:
        self._folder = cache_folder / "gold"
        self._limits = limits
        self._out_of_time: dict[GoldStatement, Execution] = {}

    def executions(
        self, sandbox: Sandbox, statements: Sequence[GoldStatement]
    ) -> tuple[Execution, ...]:
        """Returns what each statement returns; those that are not kept are run in one job."""
        kept = {statement: self._kept(statement) for statement in statements}
        missing = [statement for statement, execution in kept.items() if execution is None]
        found = {each: execution for each, execution in kept.items() if execution is not None}
        if missing:
            jobs = [(each.path, each.statement) for each in missing]
            executed = execute(sandbox, jobs, self._limits).executions
            for statement, execution in zip(missing, executed, strict=True):
                found[statement] = execution
                self._keep(statement, execution)
        return tuple(found[statement] for statement in statements)

    def _path(self, statement: GoldStatement) -> Path:
        key = digest(
            statement.database_digest,
            statement.statement,
            sqlite_version(),
            repr(astuple(self._limits)),
            day_of(statement.statement),
        )
        return self._folder / f"{key}.json"

    def _kept(self, statement: GoldStatement) -> Execution | None:
        if statement in self._out_of_time:
            return self._out_of_time[statement]
        path = self._path(statement)
        try:
            content = json.loads(path.read_bytes())
            return Execution(
                ending=Ending(content["ending"]),
                rows=tuple(tuple(map(value_of, row)) for row in content["rows"]),
                num_columns=int(content["num_columns"]),
                detail=str(content["detail"]),
            )
        except FileNotFoundError:
            return None
        except DAMAGED as error:
            raise ValueError(
                f"{path}: no rows of a gold statement ({error}); delete it: it is made again"
            ) from error

    def _keep(self, statement: GoldStatement, execution: Execution) -> None:
        if execution.ending is Ending.TIMEOUT:
            self._out_of_time[statement] = execution
        if execution.ending not in _LASTING:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {
            "statement": statement.statement,
            "ending": execution.ending,
            "num_columns": execution.num_columns,
            "detail": execution.detail,
            "rows": [[written_value(value) for value in row] for row in execution.rows],
        }
        write_json(self._path(statement), content, is_flushed=False)


def day_of(statement: str) -> str:
    """Returns today in UTC for a statement that asks for it, "" for every other."""
    return datetime.now(UTC).date().isoformat() if _ASKS_FOR_NOW.search(statement) else ""
