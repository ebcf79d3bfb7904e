"""A grammar of small Python functions, each with words that say what it does.

A program is one to three steps on a number, a list of numbers or a text, with constants drawn from
ranges. Two programs are the same where their code is, but for names: to take the first items of a
list and the first characters of a text is one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NUMBER, NUMBERS, TEXT, FLAG = "number", "numbers", "text", "flag"

_CALLED: Mapping[str, str] = {NUMBER: "a number", NUMBERS: "a list of numbers", TEXT: "a text"}
# One name each, and constants of one digit or letter: to copy what stands in a question is the
# hardest part for models this small.
_PARAMETERS: Mapping[str, str] = {NUMBER: "n", NUMBERS: "items", TEXT: "text"}
_DIGITS, _FEW, _LETTERS = (2, 9), (2, 5), "abdeorst"
_WORDS = "bread dust road store tree table order board water sea letter boat"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One thing that is done: the code, and ways to say it."""

    name: str
    takes: str
    gives: str
    code: str  # an expression of {v}
    says: tuple[str, ...]  # {it} is what it is done to
    constants: tuple[Any, ...] = ()  # of each the range, or the letters it is one of


def _step(name: str, kinds: str, code: str, says: str, *constants: Any) -> Step:
    takes, gives = kinds.split(" ")
    wordings = tuple(says.split(" | "))
    return Step(name=name, takes=takes, gives=gives, code=code, says=wordings, constants=constants)


# {a} and {b} are constants; ranges are small where a larger number would leave nothing to see.
STEPS: Sequence[Step] = (
    _step("add", "number number", "{v} + {a}", "add {a} to {it} | increase {it} by {a}", _DIGITS),
    _step(
        "subtract",
        "number number",
        "{v} - {a}",
        "subtract {a} from {it} | decrease {it} by {a}",
        _DIGITS,
    ),
    _step("multiply", "number number", "{v} * {a}", "multiply {it} by {a}", _DIGITS),
    _step(
        "remainder",
        "number number",
        "{v} % {a}",
        "take {it} modulo {a} | take the remainder of {it} divided by {a}",
        _DIGITS,
    ),
    _step("divide", "number number", "{v} // {a}", "divide {it} by {a} and round down", _DIGITS),
    _step("square", "number number", "{v} * {v}", "square {it} | multiply {it} by itself"),
    _step("negate", "number number", "-{v}", "negate {it} | change the sign of {it}"),
    _step("absolute", "number number", "abs({v})", "take the absolute value of {it}"),
    _step("at_most", "number number", "min({v}, {a})", "limit {it} to at most {a}", _DIGITS),
    _step("at_least", "number number", "max({v}, {a})", "raise {it} to at least {a}", _DIGITS),
    _step("is_above", "number flag", "{v} > {a}", "tell whether {it} is above {a}", _DIGITS),
    _step("is_below", "number flag", "{v} < {a}", "tell whether {it} is below {a}", _DIGITS),
    _step("divides", "number flag", "{v} % {a} == 0", "tell whether {a} divides {it}", _DIGITS),
    _step(
        "is_between",
        "number flag",
        "{a} <= {v} <= {b}",
        "tell whether {it} is from {a} to {b}",
        (2, 4),
        (5, 9),
    ),
    _step(
        "keep_above",
        "numbers numbers",
        "[item for item in {v} if item > {a}]",
        "keep what is above {a} in {it} | drop what is not above {a} from {it}",
        _DIGITS,
    ),
    _step(
        "keep_below",
        "numbers numbers",
        "[item for item in {v} if item < {a}]",
        "keep what is below {a} in {it} | drop what is not below {a} from {it}",
        _DIGITS,
    ),
    _step(
        "keep_multiples",
        "numbers numbers",
        "[item for item in {v} if item % {a} == 0]",
        "keep the multiples of {a} in {it}",
        _DIGITS,
    ),
    _step(
        "keep_odd",
        "numbers numbers",
        "[item for item in {v} if item % 2 == 1]",
        "keep the odd numbers in {it}",
    ),
    _step(
        "add_to_all",
        "numbers numbers",
        "[item + {a} for item in {v}]",
        "add {a} to every item of {it}",
        _DIGITS,
    ),
    _step(
        "subtract_from_all",
        "numbers numbers",
        "[item - {a} for item in {v}]",
        "subtract {a} from every item of {it}",
        _DIGITS,
    ),
    _step(
        "multiply_all",
        "numbers numbers",
        "[item * {a} for item in {v}]",
        "multiply every item of {it} by {a}",
        _DIGITS,
    ),
    _step(
        "square_all",
        "numbers numbers",
        "[item * item for item in {v}]",
        "square every item of {it}",
    ),
    _step("sort", "numbers numbers", "sorted({v})", "sort {it} | put {it} in ascending order"),
    _step(
        "sort_down",
        "numbers numbers",
        "sorted({v}, reverse=True)",
        "sort {it} from high to low | put {it} in descending order",
    ),
    _step("reverse_list", "numbers numbers", "{v}[::-1]", "reverse {it}"),
    _step("first", "numbers numbers", "{v}[:{a}]", "take the first {a} items of {it}", _FEW),
    _step(
        "without_first", "numbers numbers", "{v}[{a}:]", "skip the first {a} items of {it}", _FEW
    ),
    _step("last", "numbers numbers", "{v}[-{a}:]", "take the last {a} items of {it}", _FEW),
    _step("total", "numbers number", "sum({v})", "sum {it} | add up {it}"),
    _step("count", "numbers number", "len({v})", "count the items of {it}"),
    _step("largest", "numbers number", "max({v}, default=0)", "take the largest item of {it} or 0"),
    _step(
        "smallest", "numbers number", "min({v}, default=0)", "take the smallest item of {it} or 0"
    ),
    _step("upper", "text text", "{v}.upper()", "put {it} in upper case"),
    _step("lower", "text text", "{v}.lower()", "put {it} in lower case"),
    _step("reverse_text", "text text", "{v}[::-1]", "reverse {it}"),
    _step("first_letters", "text text", "{v}[:{a}]", "take the first {a} characters of {it}", _FEW),
    _step("last_letters", "text text", "{v}[-{a}:]", "take the last {a} characters of {it}", _FEW),
    _step("repeat", "text text", "{v} * {a}", "repeat {it} {a} times", _FEW),
    _step(
        "without", "text text", '{v}.replace("{a}", "")', 'remove every "{a}" from {it}', _LETTERS
    ),
    _step(
        "replace",
        "text text",
        '{v}.replace("{a}", "{b}")',
        'replace every "{a}" by "{b}" in {it}',
        _LETTERS,
        _LETTERS,
    ),
    _step("append", "text text", '{v} + "{a}"', 'put "{a}" behind {it}', _LETTERS),
    _step("prepend", "text text", '"{a}" + {v}', 'put "{a}" before {it}', _LETTERS),
    _step("count_letter", "text number", '{v}.count("{a}")', 'count every "{a}" in {it}', _LETTERS),
    _step("length", "text number", "len({v})", "take the length of {it}"),
    _step("count_words", "text number", "len({v}.split())", "count the words of {it}"),
    _step(
        "starts",
        "text flag",
        '{v}.startswith("{a}")',
        'tell whether {it} starts with "{a}"',
        _LETTERS,
    ),
    _step("contains", "text flag", '"{a}" in {v}', 'tell whether "{a}" is in {it}', _LETTERS),
)


@dataclass(frozen=True, slots=True)
class Applied:
    """A step with its constants."""

    step: Step
    constants: tuple[Any, ...]

    @property
    def _named(self) -> dict[str, Any]:
        return dict(zip("ab", self.constants, strict=False))

    def code(self, variable: str) -> str:
        """Returns the expression on a variable."""
        return self.step.code.format(v=variable, **self._named)

    def words(self, it: str, rng: random.Random) -> str:
        """Returns one way to say it."""
        return rng.choice(self.step.says).format(it=it, **self._named)


Program = tuple[Applied, ...]


def draw_program(rng: random.Random, takes: str, num_steps: int) -> Program:
    """Returns steps that fit one another; none after one that tells whether, none of them twice."""
    applied: list[Applied] = []
    kind = takes
    while len(applied) < num_steps and kind != FLAG:
        used = {each.step.name for each in applied}
        is_last = len(applied) == num_steps - 1
        fits = [
            step
            for step in STEPS
            if step.takes == kind and step.name not in used and (is_last or step.gives != FLAG)
        ]
        step = rng.choice(fits)
        applied.append(Applied(step, tuple(_constant(rng, each) for each in step.constants)))
        kind = step.gives
    return tuple(applied)


def _constant(rng: random.Random, allowed: Any) -> Any:
    return rng.choice(allowed) if isinstance(allowed, str) else rng.randint(*allowed)


def with_other_constant(applied: Applied, number: int) -> Applied:
    """Returns a step with its constant of a number at the other side of its range."""
    constants = list(applied.constants)
    allowed, given = applied.step.constants[number], constants[number]
    if isinstance(allowed, str):
        constants[number] = allowed[allowed.index(given) - 1]
    else:
        other = sum(allowed) - given
        constants[number] = other if other != given else given + 1
    return Applied(applied.step, tuple(constants))


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A program with names and words."""

    name: str
    program: Program
    code: str
    words: str  # in the imperative, without a full stop

    @property
    def takes(self) -> str:
        """Returns the kind of its argument."""
        return self.program[0].step.takes


def draw_function(rng: random.Random, program: Program) -> Function:
    """Returns the program as a function, whose name says what it does and not how much."""
    name = "_then_".join(each.step.name for each in program)
    code = code_of(program, name, _PARAMETERS[program[0].step.takes])
    return Function(name=name, program=program, code=code, words=_words(rng, program))


def code_of(program: Program, name: str, parameter: str) -> str:
    """Returns a definition of one statement per step."""
    lines = [f"def {name}({parameter}):"]
    variable = parameter
    for number, each in enumerate(program, start=1):
        expression = each.code(variable)
        if number == len(program):
            lines.append(f"    return {expression}")
        else:
            variable = variable if each.step.gives == each.step.takes else "result"
            lines.append(f"    {variable} = {expression}")
    return "\n".join(lines) + "\n"


def _words(rng: random.Random, program: Program) -> str:
    said = [
        each.words(_CALLED[each.step.takes] if number == 0 else "it", rng)
        for number, each in enumerate(program)
    ]
    return ", then ".join(said)


def draw_argument(rng: random.Random, takes: str, longest: int = 4) -> Any:
    """Returns an argument of a kind on which steps and constants show; lists of 2 or more items."""
    match takes:
        case "number":
            return rng.randint(-9, 30)
        case "numbers":
            return [rng.randint(-5, 20) for _ in range(rng.randint(2, longest))]
        case _:
            words = [rng.choice(_WORDS.split()) for _ in range(rng.randint(1, longest // 2))]
            return " ".join(word.title() if rng.random() < 0.3 else word for word in words)


def result_of(code: str, name: str, argument: Any) -> Any:
    """Returns what a function of this grammar gives: our own code, never a model's."""
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope[name](argument)
