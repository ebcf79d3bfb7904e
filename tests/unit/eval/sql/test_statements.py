from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.eval.sql.row_order import is_ordered
from mira_megatron.eval.sql.statements import (
    first_statement,
    has_outer_order_by,
    official_statement,
    says_order_by,
    spider_statement,
    without_distinct,
)

PIECES = st.lists(
    st.sampled_from(
        ["'", '"', "`", "[", "]", "--", "/*", "*/", "\n", ";", "(", ")", " ", "distinct", "a", "1"]
    )
).map("".join)


@given(PIECES)
def test_tokens_together_are_the_text(text: str) -> None:
    assert without_distinct(text.replace("distinct", "d")) == text.replace("distinct", "d")
    first = first_statement(text)
    assert text.startswith(first)
    assert first == text or text[len(first)] == ";"


@given(PIECES)
def test_first_statement_of_a_first_statement_is_itself(text: str) -> None:
    assert first_statement(first_statement(text)) == first_statement(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1; SELECT 2", "SELECT 1"),
        ("SELECT ';', \";\", `;`, [;] ; x", "SELECT ';', \";\", `;`, [;] "),
        ("SELECT 'it''s;' ; x", "SELECT 'it''s;' "),
        ("SELECT 1 -- ; no\n + /* ; */ 2; x", "SELECT 1 -- ; no\n + /* ; */ 2"),
        ("SELECT 'never closed; x", "SELECT 'never closed; x"),
        ("SELECT 1", "SELECT 1"),
    ],
)
def test_statement_ends_at_a_semicolon_that_is_not_quoted(text: str, expected: str) -> None:
    assert first_statement(text) == expected


def test_distinct_is_dropped_as_a_word_alone() -> None:
    statement = "SELECT DISTINCT a, count(Distinct b), 'distinct', \"distinct\" FROM distincts"
    expected = "SELECT  a, count( b), 'distinct', \"distinct\" FROM distincts"
    assert without_distinct(statement) == expected


def test_spider_joins_torn_signs_and_knows_the_year() -> None:
    assert spider_statement("SELECT a > = 1, b ! = 2") == "SELECT a >= 1, b != 2"
    assert spider_statement("SELECT YEAR ( curdate() ) - a") == "SELECT 2020- a"


def test_official_takes_value_for_a_stand_in_and_the_first_of_a_chain() -> None:
    assert official_statement("SELECT a WHERE b = value; x") == "SELECT a WHERE b = 1"


ORDERS = [
    # statement, by the text, by the outermost
    ("SELECT a FROM t ORDER BY a", True, True),
    ("SELECT a FROM t order by a LIMIT 1", True, True),
    ("SELECT a FROM t ORDER  BY a", False, True),
    ("SELECT a FROM t WHERE a IN (SELECT b FROM u ORDER BY b LIMIT 3)", True, False),
    ("SELECT a FROM (SELECT a FROM t ORDER BY a)", True, False),
    ("WITH c AS (SELECT a FROM t ORDER BY a) SELECT a FROM c", True, False),
    ("WITH c AS (SELECT a FROM t) SELECT a FROM c ORDER BY a", True, True),
    ("SELECT rank() OVER (ORDER BY a) FROM t", True, False),
    ("SELECT a FROM t UNION SELECT b FROM u ORDER BY 1", True, True),
    ("SELECT a FROM t WHERE b = 'order by'", True, False),
    ("SELECT a FROM t -- order by a", True, False),
    ('SELECT "order" by_name FROM t', False, False),
    ("SELECT a FROM t GROUP BY a", False, False),
]


@pytest.mark.parametrize(("statement", "by_text", "by_outermost"), ORDERS)
def test_order_of_rows_by_the_text_and_by_the_outermost(
    statement: str, by_text: bool, by_outermost: bool
) -> None:
    assert says_order_by(statement) == by_text
    assert is_ordered(statement) == by_outermost
    assert has_outer_order_by(statement) == by_outermost


def test_order_of_what_cannot_be_parsed_is_read_by_brackets() -> None:
    assert is_ordered("SELECT FROM WHERE (( x ORDER BY ) ) ORDER BY a")
    assert not is_ordered("SELECT FROM WHERE (( x ORDER BY a))")
