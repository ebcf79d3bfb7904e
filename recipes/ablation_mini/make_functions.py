"""Writes the small functions of the ablation on a laptop, and the benchmark made of others.

    python recipes/ablation_mini/make_functions.py [--output FOLDER] [--tasks FOLDER]

Writes  OUTPUT/before.jsonl.zst        documents that the base model is trained on
        OUTPUT/mix.jsonl.zst           documents of the corpus that arms choose from
        OUTPUT/mix_questions.jsonl.zst questions with answers of the same corpus
        OUTPUT/instructions.jsonl.zst  what every arm is tuned on, asked as MBPP asks a chat
        TASKS/functions.jsonl          the benchmark, as EvalPlus writes MbppPlus

A program (small_functions.py) occurs in one of the five alone, so no solution of a task is in
anything that a model is trained on. The same files come out every time.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zstandard
from small_functions import (
    NUMBER,
    NUMBERS,
    TEXT,
    Function,
    Program,
    code_of,
    draw_argument,
    draw_function,
    draw_program,
    result_of,
)

HERE = Path(__file__).resolve().parent
SEED = 20

NUM_BEFORE, NUM_MIX, NUM_QUESTIONS, NUM_INSTRUCTIONS = 12_000, 4_000, 1_000, 600
NUM_TASKS = 160
_KINDS = (NUMBER, NUMBERS, TEXT)
_STEPS_BY_WEIGHT = (1, 2, 2, 3, 3, 3)
_STEPS_OF_TASKS = (2, 3, 3)
_NUM_BASE_INPUTS, _NUM_PLUS_INPUTS = 3, 7

# MBPP's own question and EvalPlus's words around it (mira_megatron/eval/mbpp_prompts.py).
_ASKED = (
    "Please provide a self-contained Python script that solves the following problem in a markdown "
    "code block:"
)


# A program belongs to one of the files, by its digest; of 100.
_BEFORE = "before.jsonl.zst"
_SHARES = {
    "functions.jsonl": 10,
    "instructions.jsonl.zst": 10,
    "mix_questions.jsonl.zst": 10,
    "mix.jsonl.zst": 25,
    _BEFORE: 45,
}
# Steps that the base model has never seen: the arms' corpus teaches them. They are among the
# instructions, too: a tuning without them makes every arm forget them.
_LATE = (
    "triple at_least is_even keep_negative double_all without_first smallest dashed turn count_e"
)


def owner(program: Program) -> str:
    """Returns the file that a program belongs to, whatever its function is called."""
    is_late = any(step.name in _LATE.split() for step in program)
    shares = {name: share for name, share in _SHARES.items() if not (is_late and name == _BEFORE)}
    digest = hashlib.sha256(code_of(program, "any", "name").encode()).digest()
    place = int.from_bytes(digest[:8], "big") % sum(shares.values())
    bounds = itertools.accumulate(shares.values())
    return next(name for name, bound in zip(shares, bounds, strict=True) if place < bound)


class Programs:
    """Draws programs of one file."""

    def __init__(self, name: str) -> None:
        self.rng = random.Random(f"{SEED} {name}")
        self._name = name

    def draw(self, takes: str, steps: Sequence[int]) -> Function:
        """Returns a function that belongs to the file."""
        while True:  # of one step a file may have no program at all
            program = draw_program(self.rng, takes, self.rng.choice(steps))
            if owner(program) == self._name:
                return draw_function(self.rng, program)


def task(programs: Programs, number: int, solutions: set[str]) -> dict[str, Any]:
    """Returns a task in EvalPlus's format, whose inputs tell its program from its neighbours."""
    while True:
        function = programs.draw(_KINDS[number % len(_KINDS)], _STEPS_OF_TASKS)
        drawn = _telling_arguments(programs.rng, function)
        solution = code_of(function.program, "any", "name")
        if drawn is not None and solution not in solutions:
            break
    solutions.add(solution)
    return {
        "task_id": f"Mini/{number}",
        "prompt": question(function, drawn[0]),
        "entry_point": function.name,
        "canonical_solution": "\n" + function.code,
        "base_input": [[argument] for argument in drawn[:_NUM_BASE_INPUTS]],
        "plus_input": [[argument] for argument in drawn[_NUM_BASE_INPUTS:]],
        "contract": "",
        "assertion": assertion(function, drawn[0]),
        "atol": 0,
    }


def _telling_arguments(rng: random.Random, function: Function) -> list[Any] | None:
    """Returns arguments on which every program that is near this one gives something else.

    The first ones suffice alone, so that both verdicts mean something. None where none are found.
    """
    near = [code_of(other, function.name, "given") for other in _neighbours(function.program)]
    for _ in range(50):
        lengths = [4] + [8] * (_NUM_BASE_INPUTS + _NUM_PLUS_INPUTS - 1)  # the first one is shown
        drawn = [draw_argument(rng, function.takes, longest) for longest in lengths]
        base = drawn[:_NUM_BASE_INPUTS]
        right = [result_of(function.code, function.name, argument) for argument in base]
        is_told = all(
            [result_of(code, function.name, argument) for argument in base] != right
            for code in near
        )
        if is_told and len({repr(value) for value in right}) > 1:
            return drawn
    return None


def _neighbours(program: Program) -> Iterator[Program]:
    """Yields the program without each step that can go."""
    for position, step in enumerate(program):
        before, after = program[:position], program[position + 1 :]
        if (before or after) and (step.takes == step.gives or not after):
            yield before + after


def assertion(function: Function, argument: Any) -> str:
    """Returns one example, as MBPP has it under its question."""
    value = result_of(function.code, function.name, argument)
    return f"assert {function.name}({argument!r}) == {value!r}"


def question(function: Function, argument: Any) -> str:
    """Returns the docstring that a task of MBPP consists of."""
    return f'"""\nWrite a function to {function.words}.\n{assertion(function, argument)}\n"""\n'


def document(programs: Programs) -> dict[str, str]:
    """Returns a text of a corpus: a function under its question, with its docstring, or both."""
    function = programs.draw(programs.rng.choice(_KINDS), _STEPS_BY_WEIGHT)
    argument = draw_argument(programs.rng, function.takes, longest=4)
    forms = [question(function, argument) + function.code, _documented(function, argument)]
    chosen = programs.rng.choice((forms[:1], forms[1:], forms, forms[::-1]))
    return {"text": "\n\n".join(chosen)}


def _documented(function: Function, argument: Any) -> str:
    """Returns a function with what it does inside, and an example."""
    value = result_of(function.code, function.name, argument)
    said = f"{function.words[0].upper()}{function.words[1:]}."
    shown = f"    >>> {function.name}({argument!r})\n    {value!r}\n"
    head, _, body = function.code.partition("\n")
    return f'{head}\n    """{said}\n\n{shown}    """\n{body}'


def exchange(programs: Programs, before: str, after: str) -> dict[str, str]:
    """Returns a question as a chat is asked it, with the code as its answer."""
    function = programs.draw(programs.rng.choice(_KINDS), _STEPS_BY_WEIGHT)
    asked = question(function, draw_argument(programs.rng, function.takes, longest=4)).strip()
    return {
        before: f"{_ASKED}\n```python\n{asked}\n```",
        after: f"```python\n{function.code}```",
    }


def contents() -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of all files by name."""
    tasks, instructions, questions, mix, before = map(Programs, _SHARES)
    solutions: set[str] = set()
    rows = (
        [task(tasks, number, solutions) for number in range(1, NUM_TASKS + 1)],
        [exchange(instructions, "input", "output") for _ in range(NUM_INSTRUCTIONS)],
        [exchange(questions, "question", "answer") for _ in range(NUM_QUESTIONS)],
        [document(mix) for _ in range(NUM_MIX)],
        [document(before) for _ in range(NUM_BEFORE)],
    )
    return dict(zip(_SHARES, rows, strict=True))


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows as jsonl, compressed where the name says so."""
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    is_packed = path.suffix == ".zst"
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(lines) if is_packed else lines)


def main(arguments: Sequence[str]) -> None:
    """Writes all files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--tasks", type=Path, default=HERE.parents[1] / "eval" / "mini")
    options = parser.parse_args(arguments)
    for name, rows in contents().items():
        folder = options.output if name.endswith(".zst") else options.tasks
        write(folder / name, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
