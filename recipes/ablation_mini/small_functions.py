"""A grammar of small Python functions, each with words that say what it does.

A program is one to three steps on a number, a list of numbers or a text. Two programs are the same
where their code is, but for names: to reverse a list and to reverse a text is one.

A step has its constant in its words ("triple it"). Models of a few hundred thousand weights put
steps together in the order that a question has them, but after two million tokens they did not yet
copy a number out of it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NUMBER, NUMBERS, TEXT, FLAG = "number", "numbers", "text", "flag"

_CALLED: Mapping[str, str] = {NUMBER: "a number", NUMBERS: "a list of numbers", TEXT: "a text"}
_PARAMETERS: Mapping[str, str] = {NUMBER: "n", NUMBERS: "items", TEXT: "text"}
_WORDS = "bread dust road store Tree table Order board Water sea letter Boat"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done: the code, and ways to say it."""

    name: str
    takes: str
    gives: str
    code: str  # an expression of {v}
    says: tuple[str, ...]  # {it} is what it is done to


def _steps(takes: str, gives: str, *lines: str) -> list[Step]:
    """Returns steps written as: name: code: words | other words."""
    steps = []
    for line in lines:
        name, code, says = line.split(" : ")
        steps.append(Step(name, takes, gives, code, tuple(says.split(" | "))))
    return steps


STEPS: Sequence[Step] = (
    *_steps(
        NUMBER,
        NUMBER,
        "increment : {v} + 1 : add one to {it} | increase {it} by one",
        "decrement : {v} - 1 : subtract one from {it} | decrease {it} by one",
        "add_ten : {v} + 10 : add ten to {it} | increase {it} by ten",
        "double : {v} * 2 : double {it} | multiply {it} by two",
        "triple : {v} * 3 : triple {it} | multiply {it} by three",
        "halve : {v} // 2 : halve {it} and round down",
        "last_digit : {v} % 10 : take {it} modulo ten",
        "square : {v} * {v} : square {it} | multiply {it} by itself",
        "negate : -{v} : negate {it} | change the sign of {it}",
        "absolute : abs({v}) : take the absolute value of {it} | drop the sign of {it}",
        "at_most : min({v}, 100) : limit {it} to at most a hundred",
        "at_least : max({v}, 0) : raise {it} to at least zero",
    ),
    *_steps(
        NUMBER,
        FLAG,
        "is_positive : {v} > 0 : tell whether {it} is positive",
        "is_negative : {v} < 0 : tell whether {it} is negative",
        "is_even : {v} % 2 == 0 : tell whether {it} is even",
        "is_large : {v} > 50 : tell whether {it} is above fifty",
    ),
    *_steps(
        NUMBERS,
        NUMBERS,
        "keep_positive : [item for item in {v} if item > 0] : keep the positive items of {it}",
        "keep_negative : [item for item in {v} if item < 0] : keep the negative items of {it}",
        "keep_even : [item for item in {v} if item % 2 == 0] : keep the even items of {it}",
        "keep_odd : [item for item in {v} if item % 2 == 1] : keep the odd items of {it}",
        "increment_all : [item + 1 for item in {v}] : add one to every item of {it}",
        "double_all : [item * 2 for item in {v}] : double every item of {it}",
        "square_all : [item * item for item in {v}] : square every item of {it}",
        "negate_all : [-item for item in {v}] : negate every item of {it}",
        "absolute_all : [abs(item) for item in {v}] : drop the sign of every item of {it}",
        "sort : sorted({v}) : sort {it} | put {it} in ascending order",
        "sort_down : sorted({v}, reverse=True) : sort {it} from high to low",
        "reverse : {v}[::-1] : reverse {it} | turn {it} around",
        "first_three : {v}[:3] : take the first three items of {it}",
        "last_two : {v}[-2:] : take the last two items of {it}",
        "without_first : {v}[1:] : skip the first item of {it}",
        "without_last : {v}[:-1] : leave out the last item of {it}",
    ),
    *_steps(
        NUMBERS,
        NUMBER,
        "total : sum({v}) : sum {it} | add up {it}",
        "count : len({v}) : count the items of {it}",
        "largest : max({v}, default=0) : take the largest item of {it} or zero",
        "smallest : min({v}, default=0) : take the smallest item of {it} or zero",
    ),
    *_steps(
        TEXT,
        TEXT,
        "upper : {v}.upper() : put {it} in upper case",
        "lower : {v}.lower() : put {it} in lower case",
        "swap_case : {v}.swapcase() : swap the case of {it}",
        'turn : "".join(reversed({v})) : reverse {it} | turn {it} around',
        "start : {v}[:4] : take the first four characters of {it}",
        "end : {v}[-3:] : take the last three characters of {it}",
        "twice : {v} * 2 : repeat {it} twice",
        'without_spaces : {v}.replace(" ", "") : remove the spaces of {it}',
        'dashed : {v}.replace(" ", "-") : replace the spaces of {it} by dashes',
        'shout : {v} + "!" : put an exclamation mark behind {it}',
        'in_brackets : "(" + {v} + ")" : put {it} in brackets',
        "without_end : {v}[:-1] : leave out the last character of {it}",
    ),
    *_steps(
        TEXT,
        NUMBER,
        "length : len({v}) : take the length of {it}",
        "count_words : len({v}.split()) : count the words of {it}",
        'count_e : {v}.count("e") : count every e in {it}',
    ),
    *_steps(
        TEXT,
        FLAG,
        "is_upper : {v}.isupper() : tell whether {it} is in upper case",
        'has_space : " " in {v} : tell whether {it} has a space',
    ),
)

Program = tuple[Step, ...]


def draw_program(rng: random.Random, takes: str, num_steps: int) -> Program:
    """Returns steps that fit one another; none after one that tells whether, none of them twice."""
    program: list[Step] = []
    kind = takes
    while len(program) < num_steps:
        is_last = len(program) == num_steps - 1
        fits = [
            step
            for step in STEPS
            if step.takes == kind and step not in program and (is_last or step.gives != FLAG)
        ]
        program.append(rng.choice(fits))
        kind = program[-1].gives
    return tuple(program)


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A program with a name and words."""

    name: str
    program: Program
    code: str
    words: str  # in the imperative, without a full stop

    @property
    def takes(self) -> str:
        """Returns the kind of its argument."""
        return self.program[0].takes


def draw_function(rng: random.Random, program: Program) -> Function:
    """Returns the program as a function, said in one of the ways there are."""
    name = "_then_".join(step.name for step in program)
    said = [
        rng.choice(step.says).format(it=_CALLED[step.takes] if number == 0 else "it")
        for number, step in enumerate(program)
    ]
    code = code_of(program, name, _PARAMETERS[program[0].takes])
    return Function(name=name, program=program, code=code, words=", then ".join(said))


def code_of(program: Program, name: str, parameter: str) -> str:
    """Returns a definition of one statement per step."""
    lines = [f"def {name}({parameter}):"]
    variable = parameter
    for number, step in enumerate(program, start=1):
        expression = step.code.format(v=variable)
        if number == len(program):
            lines.append(f"    return {expression}")
        else:
            variable = variable if step.gives == step.takes else "result"
            lines.append(f"    {variable} = {expression}")
    return "\n".join(lines) + "\n"


def draw_argument(rng: random.Random, takes: str, longest: int) -> Any:
    """Returns an argument of a kind on which steps show; lists have two items or more."""
    match takes:
        case "number":
            return rng.randint(-60, 120)
        case "numbers":
            return [rng.randint(-20, 40) for _ in range(rng.randint(2, longest))]
        case _:
            words = [rng.choice(_WORDS.split()) for _ in range(rng.randint(1, longest // 2))]
            return " ".join(words)


def result_of(code: str, name: str, argument: Any) -> Any:
    """Returns what a function of this grammar gives: our own code, never a model's."""
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope[name](argument)
