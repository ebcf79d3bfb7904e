"""What statements may do on a real database in a real sandbox, and what comes back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sql_files import CONCERTS, NO_UTF_8, readable_folder, write_database

from mira_megatron.eval.sandbox.contract import Outcome, Sandbox, SandboxError
from mira_megatron.eval.sql import execution
from mira_megatron.eval.sql.execution import (
    BadText,
    Ending,
    Execution,
    StatementLimits,
    execute,
    value_of,
    written_value,
)

LIMITS = StatementLimits(cpu_seconds=0.3, max_rows=1000, max_bytes=100_000)
NUMBERS = """
CREATE TABLE numbers (n INTEGER);
WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 2000)
INSERT INTO numbers SELECT i FROM r;
"""
COUNT_FOR_EVER = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) "
STATEMENTS = {
    "values": "SELECT 1, 2.0, 'é', x'00ff', NULL, 9223372036854775807, 9e999",
    "bad text": "SELECT city FROM stadium WHERE id = 4",
    "no rows": "SELECT id, city FROM stadium WHERE id > 9",
    "one with a semicolon": "SELECT 1; -- done",
    "json": "SELECT value FROM json_each('[5]')",
    "drop": "DROP TABLE singer",
    "delete": "DELETE FROM singer",
    "insert": "INSERT INTO singer (id) VALUES (9)",
    "create": "CREATE TEMP TABLE t AS SELECT 1",
    "attach": "ATTACH DATABASE '/tmp/other.sqlite' AS other",
    "pragma": "PRAGMA writable_schema = 1",
    "pragma function": "SELECT * FROM pragma_table_info('singer')",
    "vacuum": "VACUUM INTO '/tmp/copy.sqlite'",
    "extension": "SELECT load_extension('libc.so.6')",
    "begin": "BEGIN EXCLUSIVE",
    "chain": "SELECT 1; DROP TABLE singer",
    "blob": "SELECT zeroblob(1000000000)",
    "concatenation": "SELECT hex(zeroblob(9000000)) || 'x'",
    "cross join": "SELECT * FROM numbers a, numbers b, numbers c",
    "wide rows": "SELECT zeroblob(50000) FROM numbers",
    "counting": COUNT_FOR_EVER + "SELECT count(*) FROM r",
    "hidden counting": "SELECT count(*) FROM numbers a, numbers b, numbers c",
    "blobs for ever": "WITH RECURSIVE r(b) AS (SELECT zeroblob(9000000) UNION ALL SELECT b FROM r)"
    " SELECT length(replace(b, 'a', 'b')) FROM r",
    "no statement": "-- nothing",
    "no SQL": "I cannot answer that.",
    "no text": "SELECT '\udcff'",
    "a zero": "SELECT '\0'",
}


@dataclass(frozen=True)
class Ran:
    executions: Mapping[str, Execution]
    is_unchanged: bool
    files: list[str]


@pytest.fixture(scope="module")
def ran(sandbox: Sandbox) -> Iterator[Ran]:
    with readable_folder() as folder:
        path = write_database(folder / "a b%20?.sqlite", CONCERTS, NO_UTF_8, NUMBERS)
        before = hashlib.sha256(path.read_bytes()).digest()
        executed = execute(sandbox, [(path, each) for each in STATEMENTS.values()], LIMITS)
        yield Ran(
            executions=dict(zip(STATEMENTS, executed.executions, strict=True)),
            is_unchanged=hashlib.sha256(path.read_bytes()).digest() == before,
            files=[each.name for each in folder.iterdir()],
        )


def test_values_of_every_type_come_back(ran: Ran) -> None:
    found = ran.executions["values"]
    assert found.rows == ((1, 2.0, "é", b"\x00\xff", None, 9223372036854775807, math.inf),)
    assert [type(value) for value in found.rows[0][:2]] == [int, float]
    assert ran.executions["bad text"].rows == ((BadText(b"\xffA"),),)


def test_no_rows_still_have_columns(ran: Ran) -> None:
    assert ran.executions["no rows"] == Execution(ending=Ending.ROWS, num_columns=2)


@pytest.mark.parametrize("name", ["one with a semicolon", "json"])
def test_harmless_statement_returns_rows(ran: Ran, name: str) -> None:
    assert ran.executions[name].ending is Ending.ROWS
    assert len(ran.executions[name].rows) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *((name, "not authorized") for name in ("drop", "delete", "insert", "create", "attach")),
        *((name, "not authorized") for name in ("pragma", "pragma function", "begin")),
        ("extension", "not authorized to use function: load_extension"),
        ("vacuum", "authorization denied"),
        ("chain", "one statement at a time"),
        ("blob", "too big"),
        ("concatenation", "too big"),
        ("no statement", "no statement"),
        ("no SQL", "syntax error"),
        ("no text", "surrogates"),
        ("a zero", "null character"),
    ],
)
def test_statement_that_does_more_than_read_is_refused(ran: Ran, name: str, said: str) -> None:
    assert ran.executions[name].ending is Ending.ERROR
    assert said in ran.executions[name].detail
    assert ran.executions[name].rows == ()


@pytest.mark.parametrize(
    ("name", "said"), [("cross join", "more than 1,000 rows"), ("wide rows", "more bytes")]
)
def test_more_rows_or_bytes_than_are_compared_are_not_fetched(
    ran: Ran, name: str, said: str
) -> None:
    assert ran.executions[name].ending is Ending.TOO_LARGE
    assert said in ran.executions[name].detail
    assert ran.executions[name].rows == ()


@pytest.mark.parametrize("name", ["counting", "hidden counting", "blobs for ever"])
def test_statement_that_does_not_end_is_ended(ran: Ran, name: str) -> None:
    assert ran.executions[name].ending is Ending.TIMEOUT


def test_statement_that_takes_steps_is_ended_by_sqlite_itself(ran: Ran) -> None:
    assert ran.executions["counting"].detail == "interrupted"
    assert ran.executions["hidden counting"].detail == "interrupted"


def test_one_step_that_does_not_end_is_ended_by_a_signal(sandbox: Sandbox, folder: Path) -> None:
    # Four million comparisons at each of five million places: one call, and so one step.
    endless = "SELECT instr(printf('%.9000000c', 'a'), printf('%.4000000c', 'a') || 'b')"
    executed = execute(sandbox, [(write_database(folder / "a.sqlite"), endless)], LIMITS)
    (found,) = executed.executions
    assert (found.ending, found.detail) == (Ending.TIMEOUT, "CPU time, within one step")


def test_database_and_its_folder_are_unchanged(ran: Ran) -> None:
    assert ran.is_unchanged
    assert ran.files == ["a b%20?.sqlite"]


def test_statement_out_of_time_is_not_run_on_further_databases(
    sandbox: Sandbox, folder: Path
) -> None:
    paths = [write_database(folder / f"{name}.sqlite") for name in "ab"]
    endless = COUNT_FOR_EVER + "SELECT count(*) FROM r"
    statements = [(paths[0], endless), (paths[1], endless), (paths[1], "SELECT 1")]
    executed = execute(sandbox, statements, LIMITS)
    endings = [each.ending for each in executed.executions]
    assert endings == [Ending.TIMEOUT, Ending.TIMEOUT, Ending.ROWS]
    assert executed.executions[1].detail == "on another database"


class Canned:
    """A sandbox whose jobs have ended in one way."""

    level = 3

    def __init__(self, **changes: object) -> None:
        outcome: dict[str, object] = {
            **{"exit_code": 0, "signal": None, "is_timed_out": False, "is_out_of_memory": False},
            **{"cpu_seconds": 0.0, "wall_seconds": 0.0, "peak_bytes": 0, "stdout": b""},
            **{"stderr": b"no room", "num_output_bytes": 0, "results": b"", "num_result_bytes": 0},
            "isolation": 3,
        }
        self.outcome = Outcome(**{**outcome, **changes})  # type: ignore[arg-type]
        self.num_runs = 0

    def run(self, job: object) -> Outcome:
        self.num_runs += 1
        return self.outcome


@pytest.mark.parametrize(
    ("changes", "ending", "said"),
    [
        ({"is_timed_out": True, "exit_code": None}, Ending.TIMEOUT, "wall clock"),
        ({"is_out_of_memory": True, "exit_code": None}, Ending.DIED, "out of memory"),
        ({"results": b'{"statement": 0, "status": -9}\n'}, Ending.DIED, "out of memory"),
        ({"results": b'{"statement": 0, "status": -11}\n'}, Ending.DIED, "status -11"),
        ({"results": b'{"statement": 0, "status": -14}\n'}, Ending.TIMEOUT, "wall clock"),
        ({"results": b'[]\n{"statement": 7}\n{"statement": "x"}\n'}, Ending.DIED, "no room"),
        (
            {
                "results": b'{"statement": 0, "rows": [[1]]}\n{"statement": 0, "end": "rows",'
                b' "columns": 2, "detail": ""}\n'
            },
            Ending.DIED,
            "several widths",
        ),
    ],
)
def test_job_that_went_wrong_is_told_by_its_outcome(
    changes: dict[str, object], ending: Ending, said: str
) -> None:
    (found,) = execute(Canned(**changes), [(Path("/a.sqlite"), "SELECT 1")], LIMITS).executions
    assert found.ending is ending
    assert said in found.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | st.sampled_from(["rows", "a"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["text", "blob", "end"]), inner, max_size=2)
    ),
    max_leaves=5,
)
OF_THE_STATEMENT = st.fixed_dictionaries(
    {"statement": st.just(0)},
    optional=dict.fromkeys(("rows", "end", "columns", "detail", "status"), JSON),
)


@given(st.lists(OF_THE_STATEMENT | JSON, max_size=4))
@example([{"statement": 0, "end": "rows", "detail": "", "columns": math.inf}])
def test_whatever_a_statement_managed_to_write_is_an_ending(lines: list[object]) -> None:
    results = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    (found,) = execute(Canned(results=results), [(Path("/a"), "SELECT 1")], LIMITS).executions
    assert found.ending in Ending
    assert all(len(row) == found.num_columns for row in found.rows)


def test_job_whose_first_process_died_is_run_once_more() -> None:
    sandbox = Canned(exit_code=1)
    execute(sandbox, [(Path("/a.sqlite"), "SELECT 1")], LIMITS)
    assert sandbox.num_runs == 2


def test_another_sqlite_in_the_sandbox_is_no_verdict() -> None:
    sandbox = Canned(results=b'{"sqlite": "2.8.17"}\n')
    with pytest.raises(SandboxError, match=r"SQLite 2\.8\.17"):
        execute(sandbox, [(Path("/a.sqlite"), "SELECT 1")], LIMITS)


@pytest.mark.parametrize("value", [None, 1, -0.5, "text", b"\x00", BadText(b"\xff")])
def test_value_goes_through_json_and_back(value: execution.Value) -> None:
    assert value_of(written_value(value)) == value


def test_limits_refuse_zero() -> None:
    with pytest.raises(ValueError, match="cpu_seconds=0"):
        StatementLimits(cpu_seconds=0)
