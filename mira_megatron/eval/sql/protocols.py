"""The rules under which a prediction's rows count as those of the gold statement.

One execution is judged under several rules; docs/sql.md compares them. Sources: `spider` and
`official` taoyds/test-suite-sql-eval (2022), exec_eval.py; `bird` DAMO-ConvAI bird/llm,
evaluation.py; `qwen` what QwenLM/Qwen2.5-Coder's bird-spider evaluation comes to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mira_megatron.eval.sql.comparison import (
    MAX_CELLS,
    BoundHit,
    same_bag,
    same_list,
    same_set,
    same_under_column_order,
)
from mira_megatron.eval.sql.execution import BadText, Ending, Execution, Row, Value
from mira_megatron.eval.sql.row_order import is_ordered
from mira_megatron.eval.sql.statements import (
    official_statement,
    says_order_by,
    spider_statement,
)
from mira_megatron.eval.verdicts import Status

GOLD_ERROR = "gold error"
GOLD_TIMEOUT = "gold timeout"
NO_GOLD_ROWS = "gold returns no rows"


class Compare(StrEnum):
    """How rows are compared."""

    COLUMNS_IN_ANY_ORDER = "columns in any order"
    SET = "set"
    STRICT = "strict"


class BadTexts(StrEnum):
    """What is made of text that is no UTF-8."""

    CUT = "cut"  # the bytes that are none are left out
    REFUSED = "refused"  # the statement failed
    KEPT = "kept"  # equal to the same bytes


def _never(statement: str) -> bool:
    return False


def _as_it_is(statement: str) -> str:
    return statement


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """One rule."""

    compare: Compare
    orders_rows: Callable[[str], bool]  # of the gold statement that is run
    prepare: Callable[[str], str]  # a prediction, before it is run
    prepare_gold: Callable[[str], str]
    bad_texts: BadTexts


SPIDER = Protocol(
    compare=Compare.COLUMNS_IN_ANY_ORDER,
    orders_rows=is_ordered,
    prepare=spider_statement,
    prepare_gold=spider_statement,
    bad_texts=BadTexts.CUT,
)
OFFICIAL = Protocol(
    compare=Compare.COLUMNS_IN_ANY_ORDER,
    orders_rows=says_order_by,
    prepare=official_statement,
    prepare_gold=spider_statement,
    bad_texts=BadTexts.CUT,
)
QWEN = Protocol(
    compare=Compare.COLUMNS_IN_ANY_ORDER,
    orders_rows=_never,
    prepare=_as_it_is,
    prepare_gold=_as_it_is,
    bad_texts=BadTexts.CUT,
)
BIRD = Protocol(
    compare=Compare.SET,
    orders_rows=_never,
    prepare=_as_it_is,
    prepare_gold=_as_it_is,
    bad_texts=BadTexts.REFUSED,
)
STRICT = Protocol(
    compare=Compare.STRICT,
    orders_rows=is_ordered,
    prepare=_as_it_is,
    prepare_gold=_as_it_is,
    bad_texts=BadTexts.KEPT,
)
# By verdict name; the first of each is the one that scores of the literature are called.
SPIDER_PROTOCOLS: Mapping[str, Protocol] = {
    "spider": SPIDER,
    "spider_official": OFFICIAL,
    "spider_qwen": QWEN,
    "spider_bird": BIRD,
    "spider_strict": STRICT,
}
BIRD_PROTOCOLS: Mapping[str, Protocol] = {
    "bird": BIRD,
    "bird_spider": SPIDER,
    "bird_strict": STRICT,
}


def status_under(
    protocol: Protocol,
    gold_statement: str,
    gold: Execution,
    predicted: Execution,
    *,
    max_cells: int = MAX_CELLS,
) -> tuple[Status, str]:
    """Returns what one rule makes of a prediction's rows, and why.

    A gold statement that fails or is out of time leaves the prediction wrong, as BIRD counts; the
    controls name its task, and give a score without it. One that died says nothing about it.
    """
    if gold.ending is Ending.DIED:
        return Status.INFRA, f"gold: {gold.ending} {gold.detail}".strip()
    if gold.ending is Ending.TIMEOUT:
        return Status.TIMEOUT, f"{GOLD_TIMEOUT}: {gold.detail}"
    if gold.ending is not Ending.ROWS:
        return Status.FAIL, f"{GOLD_ERROR}: {gold.detail}"
    wanted = _readable(gold.rows, protocol.bad_texts)
    if wanted is None:
        return Status.FAIL, f"{GOLD_ERROR}: text that is no UTF-8"
    if predicted.ending is Ending.ROWS:
        is_in_order = protocol.orders_rows(gold_statement)
        status, detail = _compared(protocol, gold, wanted, predicted, is_in_order, max_cells)
    else:
        is_out_of_time = predicted.ending is Ending.TIMEOUT
        status = Status.TIMEOUT if is_out_of_time else Status.ERROR
        detail = predicted.detail
    if not wanted:
        return status, f"{NO_GOLD_ROWS}; {detail}".removesuffix("; ")
    return status, detail


def _compared(
    protocol: Protocol,
    gold: Execution,
    wanted: Sequence[Row],
    predicted: Execution,
    is_in_order: bool,
    max_cells: int,
) -> tuple[Status, str]:
    rows = _readable(predicted.rows, protocol.bad_texts)
    if rows is None:
        return Status.ERROR, "text that is no UTF-8"
    match protocol.compare:
        case Compare.SET:
            is_same = same_set(wanted, rows)
        case Compare.STRICT:
            compare = same_list if is_in_order else same_bag
            is_same = gold.num_columns == predicted.num_columns and compare(wanted, rows)
        case Compare.COLUMNS_IN_ANY_ORDER:
            try:
                is_same = same_under_column_order(
                    wanted, rows, is_ordered=is_in_order, max_cells=max_cells
                )
            except BoundHit:
                return Status.FAIL, "which columns stand for which was not found within the bound"
    if is_same:
        return Status.PASS, ""
    return Status.FAIL, (
        f"{len(rows):,} rows of {predicted.num_columns}, "
        f"gold has {len(wanted):,} of {gold.num_columns}"
    )


def _readable(rows: Sequence[Row], bad_texts: BadTexts) -> Sequence[Row] | None:
    """Returns the rows as a rule sees them; None where it refuses them."""
    if not any(isinstance(value, BadText) for row in rows for value in row):
        return rows
    match bad_texts:
        case BadTexts.REFUSED:
            return None
        case BadTexts.KEPT:
            return rows
        case BadTexts.CUT:
            return [tuple(map(_cut, row)) for row in rows]


def _cut(value: Value) -> Value:
    return value.content.decode(errors="ignore") if isinstance(value, BadText) else value
