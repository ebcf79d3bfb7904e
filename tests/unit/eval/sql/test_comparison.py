from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mira_megatron.eval.sql.comparison import (
    BoundHit,
    same_bag,
    same_list,
    same_set,
    same_under_column_order,
)
from mira_megatron.eval.sql.execution import Row

VALUES = st.sampled_from([None, 0, 1, 1.0, "1", "a", b"a"])


@st.composite
def table_pairs(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Two tables; the second is often the first with rows and columns moved, a value changed."""
    num_columns, num_rows = draw(st.integers(1, 4)), draw(st.integers(0, 5))
    row: st.SearchStrategy[Row] = st.tuples(*[VALUES] * num_columns)
    rows = st.lists(row, min_size=num_rows, max_size=num_rows)
    left, other = draw(rows), draw(rows)
    if draw(st.booleans()):
        return left, other
    order = draw(st.permutations(range(num_columns)))
    right = [tuple(row[column] for column in order) for row in draw(st.permutations(left))]
    is_changed = draw(st.booleans())
    if right and is_changed:
        place = draw(st.integers(0, len(right) - 1))
        right[place] = (draw(VALUES), *right[place][1:])
    return left, right


def is_same_by_trying_all(left: Sequence[Row], right: Sequence[Row], *, is_ordered: bool) -> bool:
    if not left and not right:
        return True
    if len(left) != len(right) or len(left[0]) != len(right[0]):
        return False
    for order in itertools.permutations(range(len(right[0]))):
        moved = [tuple(row[column] for column in order) for row in right]
        if list(left) == moved or (not is_ordered and Counter(left) == Counter(moved)):
            return True
    return False


@given(table_pairs(), st.booleans())
@example(([(0, 1), (1, 0)], [(0, 0), (1, 1)]), False)  # equal columns, other rows
@example(([(0, 0, 1, 1)] * 2, [(0, 1, 0, 1), (0, 1, 1, 0)]), False)  # a column once, not twice
@example(([("a", "a", 0), ("a", 0, 0)], [("a", 0, "a"), (0, "a", "a")]), False)
def test_columns_in_any_order_agree_with_trying_all_orders(
    tables: tuple[list[Row], list[Row]], is_ordered: bool
) -> None:
    left, right = tables
    expected = is_same_by_trying_all(left, right, is_ordered=is_ordered)
    assert same_under_column_order(left, right, is_ordered=is_ordered) == expected
    assert same_under_column_order(right, left, is_ordered=is_ordered) == expected


@given(table_pairs())
def test_rules_are_ordered_by_how_much_they_ask(tables: tuple[list[Row], list[Row]]) -> None:
    left, right = tables
    holds = [
        same_list(left, right),
        same_bag(left, right),
        same_under_column_order(left, right, is_ordered=False),
    ]
    assert holds == sorted(holds)
    assert same_set(left, right) or not same_bag(left, right)


def test_set_forgets_how_often_a_row_occurs_and_a_bag_does_not() -> None:
    once, twice = [(1,), (2,)], [(1,), (2,), (2,)]
    assert same_set(once, twice)
    assert not same_bag(once, twice)
    assert not same_bag([(1,), (1,), (2,)], twice)


def test_values_are_equal_as_python_has_it() -> None:
    assert same_set([(2.0,)], [(2,)])
    assert not same_set([(0.1 + 0.2,)], [(0.3,)])
    assert not same_set([("2",)], [(2,)])
    assert not same_set([("a",)], [(b"a",)])
    assert same_bag([(None,)], [(None,)])


def test_forty_columns_in_reverse_are_found_at_once() -> None:
    rows: list[Row] = [tuple((row * column) % 7 for column in range(40)) for row in range(50)]
    reverse = [tuple(reversed(row)) for row in rows]
    assert same_under_column_order(rows, reverse[::-1], is_ordered=False, max_cells=20_000)
    changed: list[Row] = [(*row[:-1], 9) for row in reverse]
    assert not same_under_column_order(rows, changed, is_ordered=False, max_cells=20_000)


def test_forty_equal_columns_are_one_choice() -> None:
    rows: list[Row] = [(row,) * 40 for row in range(10)]
    assert same_under_column_order(rows, rows[::-1], is_ordered=False, max_cells=2000)


def incidences(edges: Sequence[tuple[int, int]], num_nodes: int) -> list[Row]:
    """Edges as rows, nodes as columns: to match the columns is to match the graphs."""
    return [tuple(int(node in edge) for node in range(num_nodes)) for edge in edges]


def test_search_that_takes_too_long_is_given_up() -> None:
    ring = [(node, (node + 1) % 12) for node in range(12)]
    two_rings = [(a + part, (a + 1) % 6 + part) for part in (0, 6) for a in range(6)]
    left, right = incidences(ring, 12), incidences(two_rings, 12)
    assert not same_under_column_order(left, right, is_ordered=False)
    with pytest.raises(BoundHit):
        same_under_column_order(left, right, is_ordered=False, max_cells=1000)


def test_equal_columns_are_not_tried_in_all_orders_where_others_do_not_match() -> None:
    ring = [(node, (node + 1) % 12) for node in range(12)]
    two_rings = [(a + part, (a + 1) % 6 + part) for part in (0, 6) for a in range(6)]
    left, right = (
        [(*["x"] * 8, *row) for row in incidences(edges, 12)] for edges in (ring, two_rings)
    )
    assert not same_under_column_order(left, right, is_ordered=False, max_cells=100_000)


@pytest.mark.parametrize(
    "compare",
    [
        same_set,
        same_bag,
        lambda left, right: same_under_column_order(left, right, is_ordered=False),
    ],
)
def test_rows_of_one_hash_take_no_time_that_grows_with_their_square(
    compare: Callable[[list[Row], list[Row]], bool],
) -> None:
    alike: list[Row] = list(itertools.product((-1, -2), repeat=16))
    assert len(set(map(hash, alike))) == 1
    gold: list[Row] = [(number, *range(15)) for number in range(len(alike))]
    started = time.process_time()
    assert not compare(gold, alike)
    assert time.process_time() - started < 10  # a set of them takes most of a minute
