"""Whether a value is the right answer to an MBPP task, as EvalPlus has it.

Equality, or for numbers closeness, and for some tasks another rule: where the order of a list is
left open, where only "a match or none" is asked for, or where two readings of the question are both
right. Runs in the process that never ran the model's code, on values that came out of the sandbox
as plain data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_RELATIVE = 1e-07
_ABSOLUTE_OF_FLOATS = (
    1e-6  # where the task names no tolerance and the right answer is made of floats
)

# Tasks whose answer is a match object or None: what counts is which of the two.
NOT_NONE = frozenset({"check_str", "text_match_three", "text_starta_endb"})
# Tasks where an answer of any kind can be right.
ANY_ANSWER = NOT_NONE | {"are_equivalent"}
# Tasks whose answer is a collection in any order.
_AS_SETS = frozenset(
    {
        "similar_elements",
        "find_char_long",
        "common_in_nested_lists",
        "extract_singly",
        "larg_nnum",
        "intersection_array",
        "find_dissimilar",
        "Diff",
    }
)


def expected_value(entry_point: str, gold: Any) -> Any:
    """Returns what the gold program's value makes the right answer."""
    return gold is not None if entry_point in NOT_NONE else gold


def is_right(
    entry_point: str, arguments: Sequence[Any], expected: Any, value: Any, tolerance: float
) -> bool:
    """Returns whether `value` answers the call rightly.

    `tolerance` is the task's absolute one, 0 where it names none.
    """
    try:
        if _follows_the_rule(entry_point, arguments, expected, value, tolerance):
            return True
        if tolerance == 0 and is_made_of_floats(expected):
            tolerance = _ABSOLUTE_OF_FLOATS
        return tolerance != 0 and _is_close(value, expected, tolerance)
    # What a model returned may have any shape; an answer that cannot be compared is a wrong one.
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False


def is_made_of_floats(value: Any) -> bool:
    """Returns whether a value is a float, or a list or tuple of nothing else."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _follows_the_rule(
    entry_point: str, arguments: Sequence[Any], expected: Any, value: Any, tolerance: float
) -> bool:
    if entry_point in _AS_SETS:
        return _same_set(value, set(expected))
    if entry_point in NOT_NONE:
        answer = value if isinstance(value, bool) else value is not None
        return bool(answer == expected)
    if value == expected:
        return True
    match entry_point:
        case "are_equivalent":  # Mbpp/164: the reference is wrong, so every answer is taken
            return True
        case "sum_div":  # Mbpp/295: of a prime, or of 0, both readings are right
            return bool(value == 0)
        case "surface_Area":  # Mbpp/581: `height` may be the pyramid's, not its sides'
            return bool(abs(value - _pyramid_surface(*arguments)) <= tolerance)
        case "digit_distance_nums":  # Mbpp/558: digit by digit, too
            return bool(value == _digit_distance(*arguments))
        case _:
            return False


def _same_set(value: Any, expected: set[Any]) -> bool:
    """Returns set(value) == expected. What is no member ends it: numbers that a model made to have
    one hash would take hours to be put into a set.
    """
    found = set()
    for item in value:
        if item not in expected:
            return False
        found.add(item)
    return len(found) == len(expected)


def _is_close(value: Any, expected: Any, tolerance: float) -> bool:
    if type(value) is not type(expected):
        return False
    if isinstance(expected, list | tuple) and len(value) != len(expected):
        return False
    return bool(np.allclose(value, expected, rtol=_RELATIVE, atol=tolerance))


def _pyramid_surface(base_edge: float, height: float) -> int:
    slant = math.hypot(base_edge / 2, height)
    return round(base_edge**2 + 2 * base_edge * slant)


def _digit_distance(first: int, second: int) -> int:
    width = max(len(str(first)), len(str(second)))
    pairs = zip(str(first).zfill(width), str(second).zfill(width), strict=True)
    return sum(abs(int(one) - int(other)) for one, other in pairs)
