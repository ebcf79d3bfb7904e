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
_WORD = re.compile(r"[a-z]+|%")
_COUNTS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred")
# Units stand for what one converts with.
_WORD_NUMBERS: dict[str, tuple[float, ...]] = {
    **{word: (float(number),) for number, word in enumerate(_COUNTS, start=1)},
    **{word: (10.0 * number,) for number, word in enumerate(_TENS, start=2)},
    **dict.fromkeys(("half", "twice", "double", "both", "pair", "couple"), (0.5, 2.0)),
    **dict.fromkeys(("third", "thirds", "triple", "thrice"), (3.0,)),
    **dict.fromkeys(("quarter", "quarters", "fourth"), (0.25, 4.0)),
    **dict.fromkeys(("dozen", "dozens"), (12.0,)),
    **dict.fromkeys(("%", "percent", "percentage", "cents", "cent"), (100.0,)),
    **dict.fromkeys(("minute", "minutes", "hour", "hours", "second", "seconds"), (60.0,)),
    **dict.fromkeys(("day", "days", "daily"), (24.0, 7.0)),
    **dict.fromkeys(("week", "weeks", "weekly"), (7.0, 52.0)),
    **dict.fromkeys(("month", "months", "monthly"), (12.0, 30.0, 4.0)),
    **dict.fromkeys(("year", "years", "yearly"), (12.0, 52.0, 365.0)),
}
# 10/3 = 3.33 and 2/3 = 0.67 are how people round.
_RELATIVE_TOLERANCE = 0.01
_ABSOLUTE_TOLERANCE = 0.011


@dataclass(frozen=True, kw_only=True, slots=True)
class Equations:
    """Equations that could be checked."""

    num_checked: int
    num_wrong: int
    first_wrong: str | None  # as written
    results: tuple[float, ...]  # the numbers after an "=", of whatever could not be checked too


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
        num_checked=num_checked,
        num_wrong=len(wrong),
        first_wrong=wrong[0] if wrong else None,
        results=tuple(abs(_result(match)) for match in _RESULT.finditer(text)),
    )


def numbers_in(text: str) -> list[float]:
    """Returns the unsigned numbers of a text in reading order, thousands commas removed."""
    return [_number(word) for word in _NUMBER.findall(text)]


def numbers_in_words(text: str) -> frozenset[float]:
    """Returns the numbers that English words of a text stand for (three, dozen, half, week …)."""
    words = frozenset(_WORD.findall(text.lower()))
    return frozenset(
        number for word in words & _WORD_NUMBERS.keys() for number in _WORD_NUMBERS[word]
    )


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
            yield _TOKEN.findall(left), _result(result), f"{left.strip()} {result[0]}"


def _result(match: re.Match[str]) -> float:
    return _number(match[1].replace(" ", "").replace("$", ""))


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
