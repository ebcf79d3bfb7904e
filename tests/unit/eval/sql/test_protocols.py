"""Every difference between the published rules, on statements run in a real sandbox."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from sql_files import CONCERTS, NO_UTF_8, readable_folder, write_database

from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.sql.execution import Ending, Execution, StatementLimits, execute
from mira_megatron.eval.sql.protocols import (
    BIRD,
    GOLD_ERROR,
    GOLD_TIMEOUT,
    NO_GOLD_ROWS,
    SPIDER,
    SPIDER_PROTOCOLS,
    status_under,
)
from mira_megatron.eval.verdicts import Status

NAMES = ("spider", "spider_official", "spider_qwen", "spider_bird", "spider_strict")
P, F, E, T = Status.PASS, Status.FAIL, Status.ERROR, Status.TIMEOUT
IN_HIDDEN_ORDER = "SELECT id FROM (SELECT id FROM singer ORDER BY age DESC, id)"
# Why, gold, predicted, and the verdicts in the order of NAMES.
CASES = [
    ("the same", "SELECT id FROM singer", "SELECT id FROM singer", (P, P, P, P, P)),
    (
        "DISTINCT is dropped by Spider",
        "SELECT DISTINCT city FROM stadium WHERE id < 4",
        "SELECT city FROM stadium WHERE id < 4",
        (P, P, F, P, F),
    ),
    (
        "within a count, too",
        "SELECT count(DISTINCT country) FROM singer",
        "SELECT count(country) FROM singer",
        (P, P, F, F, F),
    ),
    (
        "rows that occur twice are one row to BIRD",
        "SELECT city FROM stadium WHERE id < 4",
        "SELECT city FROM stadium WHERE id < 4 GROUP BY city",
        (F, F, F, P, F),
    ),
    (
        "columns in another order",
        "SELECT id, city FROM stadium WHERE id < 4",
        "SELECT city, id FROM stadium WHERE id < 4",
        (P, P, P, F, F),
    ),
    (
        "rows in another order than the gold asks for",
        "SELECT name FROM singer ORDER BY id",
        "SELECT name FROM singer ORDER BY id DESC",
        (F, F, P, P, F),
    ),
    (
        "rows in another order where the gold asks for none",
        "SELECT name FROM singer",
        "SELECT name FROM singer ORDER BY id DESC",
        (P, P, P, P, P),
    ),
    (
        "an order within a subquery is one to a search in the text",
        IN_HIDDEN_ORDER,
        "SELECT id FROM singer ORDER BY id",
        (P, F, P, P, P),
    ),
    (
        "an order behind two spaces is none to it",
        "SELECT name FROM singer ORDER  BY id",
        "SELECT name FROM singer ORDER BY id DESC",
        (F, P, P, P, F),
    ),
    (
        "nothing is like nothing, whatever the columns",
        "SELECT id FROM singer WHERE id > 9",
        "SELECT id, city FROM stadium WHERE id > 9",
        (P, P, P, P, F),
    ),
    ("2 is 2.0", "SELECT 2", "SELECT 2.0", (P, P, P, P, P)),
    ("0.1 + 0.2 is not 0.3", "SELECT 0.3", "SELECT 0.1 + 0.2", (F, F, F, F, F)),
    ("'2' is not 2", "SELECT 2", "SELECT '2'", (F, F, F, F, F)),
    (
        "gold that is no UTF-8",
        "SELECT city FROM stadium WHERE id = 4",
        "SELECT city FROM stadium WHERE id = 4",
        (P, P, P, F, P),
    ),
    (
        "a prediction that is no UTF-8",
        "SELECT 'A'",
        "SELECT city FROM stadium WHERE id = 4",
        (P, P, P, E, F),
    ),
    ("a gold that fails", "SELECT nothing FROM singer", "SELECT 1", (F, F, F, F, F)),
    ("a prediction that fails", "SELECT 1", "SELECT nothing FROM singer", (E, E, E, E, E)),
    (
        "`value` is a stand-in to Spider's script, even of a column",
        "SELECT value FROM singer WHERE id = 1",
        "SELECT value FROM singer WHERE id = 1",
        (P, F, P, P, P),
    ),
    (
        "of a chain Spider's script runs the first",
        "SELECT id FROM singer",
        "SELECT id FROM singer; DROP TABLE singer",
        (E, P, E, E, E),
    ),
    (
        "torn signs are joined by Spider's script",
        "SELECT id FROM singer WHERE id >= 2",
        "SELECT id FROM singer WHERE id > = 2",
        (P, P, E, E, E),
    ),
    ("a dropped table", "SELECT id FROM singer", "DROP TABLE singer", (E, E, E, E, E)),
    (
        "no end",
        "SELECT 1",
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i FROM r) SELECT count(*) FROM r",
        (T, T, T, T, T),
    ),
]


@pytest.fixture(scope="module")
def executions(sandbox: Sandbox) -> Mapping[str, Execution]:
    """Every wording of every statement, run once in one sandbox."""
    wordings: dict[str, None] = {}
    for _, gold, predicted, _ in CASES:
        for protocol in SPIDER_PROTOCOLS.values():
            wordings.update({protocol.prepare_gold(gold): None, protocol.prepare(predicted): None})
    with readable_folder() as folder:
        path = write_database(folder / "a.sqlite", CONCERTS, NO_UTF_8)
        limits = StatementLimits(cpu_seconds=0.3)
        executed = execute(sandbox, [(path, each) for each in wordings], limits)
    return dict(zip(wordings, executed.executions, strict=True))


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_published_rules_differ_as_documented(
    executions: Mapping[str, Execution],
    gold: str,
    predicted: str,
    expected: tuple[Status, ...],
) -> None:
    found = {}
    for name, protocol in SPIDER_PROTOCOLS.items():
        statement = protocol.prepare_gold(gold)
        wording = protocol.prepare(predicted)
        found[name], _ = status_under(
            protocol, statement, executions[statement], executions[wording]
        )
    assert found == dict(zip(NAMES, expected, strict=True))


ONE = Execution(ending=Ending.ROWS, rows=((1,),), num_columns=1)
NOTHING = Execution(ending=Ending.ROWS, num_columns=1)
FAILED = Execution(ending=Ending.ERROR, detail="no such table: t")


def test_gold_that_failed_or_returned_nothing_is_told() -> None:
    assert status_under(BIRD, "", FAILED, ONE) == (F, f"{GOLD_ERROR}: no such table: t")
    assert status_under(BIRD, "", NOTHING, NOTHING) == (P, NO_GOLD_ROWS)
    assert status_under(BIRD, "", NOTHING, ONE) == (
        F,
        f"{NO_GOLD_ROWS}; 1 rows of 1, gold has 0 of 1",
    )
    assert status_under(BIRD, "", NOTHING, FAILED) == (E, f"{NO_GOLD_ROWS}; no such table: t")


def test_gold_that_died_says_nothing_of_the_prediction_and_one_out_of_time_leaves_it_wrong() -> (
    None
):
    died = Execution(ending=Ending.DIED, detail="why")
    assert status_under(BIRD, "", died, ONE) == (Status.INFRA, "gold: died why")
    slow = Execution(ending=Ending.TIMEOUT, detail="CPU time")
    assert status_under(BIRD, "", slow, ONE) == (T, f"{GOLD_TIMEOUT}: CPU time")


def test_columns_that_are_not_matched_within_the_bound_are_no_match() -> None:
    gold = Execution(ending=Ending.ROWS, rows=((1, 2), (1, 3)), num_columns=2)
    moved = Execution(ending=Ending.ROWS, rows=((2, 1), (3, 1)), num_columns=2)
    assert status_under(SPIDER, "SELECT 1", gold, moved) == (P, "")
    status, detail = status_under(SPIDER, "SELECT 1", gold, moved, max_cells=3)
    assert status is F
    assert "within the bound" in detail
