"""When two tables of rows count as the same answer.

Values are equal as Python has it, which is what the published scripts compare with: 2 equals 2.0,
and 0.1 + 0.2 is not 0.3; '2' is not 2, and NULL equals NULL.

Columns are matched in any order without trying all orders: a column can only stand for one that
holds the same values the same number of times, beside rows that hold the same values; every choice
then narrows which rows can stand for which. What is left is searched up to a bound on work.

The left rows are the gold statement's. The right ones, which a model chose, are looked up among
them and never make a table of their own: rows of -1 and -2 all have one hash, and a million of them
would take days to be put into a set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from mira_megatron.eval.sql.execution import Row

MAX_CELLS = 20_000_000  # looked at in the search for an order of columns: some ten seconds
_Column = Sequence[Hashable]


class BoundHit(Exception):
    """The search for an order of columns was given up: whether there is one is not known."""


def same_set(left: Sequence[Row], right: Sequence[Row]) -> bool:
    """Returns whether the same rows occur, however often."""
    wanted = set(left)
    found = set()
    for row in right:
        if row not in wanted:
            return False
        found.add(row)
    return len(found) == len(wanted)


def same_bag(left: Sequence[Row], right: Sequence[Row]) -> bool:
    """Returns whether the same rows occur equally often."""
    if len(left) != len(right):
        return False
    missing = Counter(left)
    for row in right:
        if not missing.get(row):
            return False
        missing[row] -= 1
    return True


def same_list(left: Sequence[Row], right: Sequence[Row]) -> bool:
    """Returns whether the same rows come in the same order."""
    return list(left) == list(right)


def same_under_column_order(
    left: Sequence[Row], right: Sequence[Row], *, is_ordered: bool, max_cells: int = MAX_CELLS
) -> bool:
    """Returns whether some order of the right columns makes both the same list, or the same bag.

    Two tables without rows are the same. Raises BoundHit where that would take too much work.
    """
    if len(left) != len(right):
        return False
    if not left:
        return True
    if len(left[0]) != len(right[0]):
        return False
    left_columns, right_columns = _columns(left), _columns(right)
    if is_ordered:  # rows stay where they are, so the columns alone decide
        return Counter(left_columns) == Counter(right_columns)
    if same_bag(left, right):
        return True
    return _Search(left_columns, right_columns, max_cells).run()


def _columns(rows: Sequence[Row]) -> list[tuple[Hashable, ...]]:
    return list(zip(*rows, strict=True))


@dataclass(frozen=True, slots=True)
class _Classes:
    """Which rows can still stand for each other: those of one class, equally many on both sides."""

    left: Sequence[int]
    right: Sequence[int]

    def narrowed(self, left: _Column, right: _Column) -> _Classes | None:
        """Returns the classes once one column stands for another; None where it cannot."""
        numbers: dict[Hashable, int] = {}
        by_side = tuple(
            [numbers.setdefault(pair, len(numbers)) for pair in zip(classes, column, strict=True)]
            for classes, column in ((self.left, left), (self.right, right))
        )
        return _Classes(*by_side) if Counter(by_side[0]) == Counter(by_side[1]) else None


class _Search:
    """Assigns to every left column a right one, the left one with the fewest choices first."""

    def __init__(self, left: Sequence[_Column], right: Sequence[_Column], max_cells: int) -> None:
        self._left, self._right = left, right
        self._num_rows = len(left[0])
        self._cells_left = max_cells
        # Equal columns are the same choice.
        numbers: dict[Hashable, int] = {}
        self._twins = [numbers.setdefault(column, len(numbers)) for column in right]

    def run(self) -> bool:
        """Returns whether all columns can be assigned at once."""
        rows = zip(*self._left, strict=True)
        numbers: dict[Hashable, int] = {}
        numbered = [numbers.setdefault(_members(row), len(numbers)) for row in rows]
        wanted = [numbers.get(_members(row)) for row in zip(*self._right, strict=True)]
        found = [number for number in wanted if number is not None]
        if Counter(numbered) != Counter(found):
            return False
        start = _Classes(numbered, found)
        choices = self._choices(start)
        order = sorted(choices, key=lambda column: len(choices[column]))
        return self._assign(order, choices, start, frozenset())

    def _choices(self, start: _Classes) -> Mapping[int, list[int]]:
        """Returns by left column the right ones with the same values beside the same rows."""
        left, right = (
            [frozenset(Counter(zip(classes, column, strict=True)).items()) for column in columns]
            for classes, columns in ((start.left, self._left), (start.right, self._right))
        )
        return {
            number: [other for other, found in enumerate(right) if found == wanted]
            for number, wanted in enumerate(left)
        }

    def _assign(
        self,
        order: Sequence[int],
        choices: Mapping[int, Sequence[int]],
        classes: _Classes,
        taken: frozenset[int],
    ) -> bool:
        if not order:
            return True
        tried = set()
        for choice in choices[order[0]]:
            if choice in taken or self._twins[choice] in tried:
                continue
            tried.add(self._twins[choice])
            self._cells_left -= 2 * self._num_rows
            if self._cells_left < 0:
                raise BoundHit
            narrowed = classes.narrowed(self._left[order[0]], self._right[choice])
            if narrowed is not None and self._assign(
                order[1:], choices, narrowed, taken | {choice}
            ):
                return True
        return False


def _members(row: Sequence[Hashable]) -> frozenset[tuple[Hashable, int]]:
    """Returns what is equal for rows of the same values in any order."""
    return frozenset(Counter(row).items())
