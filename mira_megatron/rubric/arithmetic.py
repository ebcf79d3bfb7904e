"""Equations written in running text, and whether their two sides are equal.

Only chains of numbers joined by + - * / are read (with × ÷ and $ as people write them). Before
each "=" a window of fixed size is looked at, so the cost is linear in the number of "=".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_WINDOW_CHARS = 80
_EXPRESSION_CHARS = "0123456789.,+-*/×÷ $"
_DIGITS = r"(?:\d{1,15}(?:,\d{3}){0,4}(?:\.\d{1,15})?|\.\d{1,15})"
_NUMBER = re.compile(_DIGITS)
_TOKEN = re.compile(rf"{_DIGITS}|[-+*/×÷]")
_RESULT = re.compile(rf"=[ $]{{0,3}}(-?[ $]{{0,2}}{_DIGITS})(?![\d,.]{{0,3}}\d)")
_OPERATORS_AFTER = tuple("+-*/×÷%^(x")
# What, before a chain of numbers, makes it only the tail of a longer expression: a variable or an
# "x" for times, a LaTeX command, a spelled-out operator, a closing bracket, a percentage.
_EXPRESSION_BEFORE = re.compile(r"(?:\b[A-Za-z]|\\[A-Za-z]+|times|plus|minus|by|of|[)%^\]}_])$")
# 10/3 = 3.33 and 2/3 = 0.67 are how people round.
_RELATIVE_TOLERANCE = 0.01
_ABSOLUTE_TOLERANCE = 0.011


@dataclass(frozen=True, kw_only=True, slots=True)
class Equations:
    """Equations that could be checked."""

    num_checked: int
    num_wrong: int
    first_wrong: str | None  # as written


def check_equations(text: str) -> Equations:
    """Returns how many of the equations `a op b … = c` in `text` are wrong."""
    num_checked, wrong = 0, []
    for left, right, written in _equations(text):
        value = _value(left)
        if value is not None:
            num_checked += 1
            tolerance = max(_ABSOLUTE_TOLERANCE, _RELATIVE_TOLERANCE * abs(value))
            if abs(value - right) > tolerance:
                wrong.append(written)
    return Equations(
        num_checked=num_checked, num_wrong=len(wrong), first_wrong=wrong[0] if wrong else None
    )


def numbers_in(text: str) -> list[float]:
    """Returns the unsigned numbers of a text in reading order, thousands commas removed."""
    return [_number(word) for word in _NUMBER.findall(text)]


def _equations(text: str) -> Iterator[tuple[list[str], float, str]]:
    """Yields the tokens before an "=", the number after it, and the equation as written."""
    for result in _RESULT.finditer(text):
        window = text[max(0, result.start() - _WINDOW_CHARS) : result.start()]
        before = window.rstrip(_EXPRESSION_CHARS)
        left = window[len(before) :]
        # A right side that goes on as an expression (= 2 * 6) has another value than its start.
        goes_on = text[result.end() : result.end() + 2].lstrip().startswith(_OPERATORS_AFTER)
        is_tail = len(left) == _WINDOW_CHARS or _EXPRESSION_BEFORE.search(before)
        if not goes_on and not is_tail:
            number = _number(result[1].replace(" ", "").replace("$", ""))
            yield _TOKEN.findall(left), number, f"{left.strip()} {result[0]}"


def _value(tokens: list[str]) -> float | None:
    """Returns the value of number, operator, number, …; None for anything else."""
    numbers, operators = tokens[::2], tokens[1::2]
    is_chain = len(numbers) == len(operators) + 1 and len(operators) >= 1
    if not is_chain or not all(_is_number(word) for word in numbers):
        return None
    if any(_is_number(word) for word in operators):
        return None
    terms = [_number(numbers[0])]
    for operator, word in zip(operators, numbers[1:], strict=True):
        number = _number(word)
        if operator in "+-":
            terms.append(number if operator == "+" else -number)
        elif operator in "*×":
            terms[-1] *= number
        elif number == 0:
            return None
        else:
            terms[-1] /= number
    return sum(terms)


def _is_number(word: str) -> bool:
    return word[-1].isdigit()


def _number(word: str) -> float:
    return float(word.replace(",", ""))
