"""MBPP and MBPP+ in the EvalPlus format: one program per task, two verdicts.

MBPP asks for the right values on a task's base inputs, MBPP+ on the base inputs and the plus
inputs. Right is what the task's own gold program returns, computed in the sandbox and kept by
content, under the rules of mbpp_oracles.py. Values are compared here, outside of the process that
ran the program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mira_megatron.eval.answers.python_program import python_program
from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.grouped_calls import Call, CallStatus, call_groups
from mira_megatron.eval.kept_results import DAMAGED, keep_json
from mira_megatron.eval.mbpp_inputs import typed_arguments
from mira_megatron.eval.mbpp_oracles import ANY_ANSWER, expected_value, is_right
from mira_megatron.eval.mbpp_prompts import mbpp_prompt
from mira_megatron.eval.sandbox import values
from mira_megatron.eval.sandbox.contract import Limits, Sandbox
from mira_megatron.eval.tool_versions import sandboxed_python
from mira_megatron.eval.verdicts import Extraction, Judgment, Sample, Status, digest

GRADER = "mbpp/1"
NAME = "mbpp"

_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "task_id": str,
    "prompt": str,
    "entry_point": str,
    "canonical_solution": str,
    "base_input": list,
    "plus_input": list,
    "atol": (int, float),
}
# EvalPlus's, here in CPU seconds: a call may take four, or four times what the gold program takes;
# all of them a minute. Its release 0.3.1 has one second, and then depends on the machine.
MIN_CALL_SECONDS = 4.0
_GOLD_FACTOR = 4.0
_SAMPLE_SECONDS = 60
_GOLD_CALL_SECONDS = 30.0
_GIB = 1 << 30
_LIMITS = Limits(
    wall_seconds=10 * _SAMPLE_SECONDS,  # for what only waits on a busy machine; CPU seconds decide
    cpu_seconds=_SAMPLE_SECONDS,
    memory_bytes=4 * _GIB,
    output_bytes=_GIB // 16,
    num_processes=32,
    file_bytes=_GIB // 16,
    num_open_files=64,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MbppTask:
    """One task with its inputs, typed as the function expects them."""

    task_id: str
    prompt: str
    entry_point: str
    solution: str  # prompt and canonical solution: a whole program
    inputs: tuple[tuple[list[Any], ...], tuple[list[Any], ...]]  # base, plus
    tolerance: float
    digest: str  # of everything that decides a verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Gold:
    """The right value of every call, and the CPU seconds that the gold program took for it."""

    values: tuple[tuple[Any, ...], ...]
    seconds: tuple[tuple[float, ...], ...]


class Mbpp:
    """The benchmark over one file, with gold values kept in a folder that runs can share.

    `has_prefill`: chats are asked with the beginning of their answer, as EvalPlus's vLLM client
    does; the endpoint must be able to go on from it. `name`: what its two benchmarks are called,
    NAME and NAME_plus, where the tasks are not EvalPlus's.
    """

    grader = GRADER

    def __init__(
        self, path: Path, cache_folder: Path, *, has_prefill: bool = False, name: str = NAME
    ) -> None:
        self.name = name
        self.verdict_names = (name, f"{name}_plus")
        self.tasks = load_tasks(path)
        self._has_prefill = has_prefill
        self._gold_folder = cache_folder / "gold"

    @property
    def task_ids(self) -> Sequence[str]:
        """The tasks in the order of the file."""
        return list(self.tasks)

    def prompt(self, task_id: str, style: Style) -> Prompt:
        """Returns what EvalPlus asks."""
        return mbpp_prompt(self.tasks[task_id].prompt, style, has_prefill=self._has_prefill)

    def extract(self, sample: Sample) -> Extraction:
        """Returns the program: a completion stands behind its prompt."""
        task = self.tasks[sample.task_id]
        return python_program(sample, task.prompt, task.entry_point)

    def task_digest(self, task_id: str) -> str:
        """Returns what a kept verdict depends on beside the program and the grader."""
        return digest(self.tasks[task_id].digest, self._python)

    @cached_property
    def _python(self) -> bytes:
        return sandboxed_python()

    def gold(self, task_id: str) -> str:
        """Returns a program that must pass."""
        return self.tasks[task_id].solution

    def bad(self, task_id: str) -> str:
        """Returns a program that must not pass: it answers every call with the same odd text."""
        name = self.tasks[task_id].entry_point
        # Where any answer, or any answer but None, may be right, there must be none at all.
        body = "raise ValueError" if name in ANY_ANSWER else "return 'no answer to any task'"
        return f"def {name}(*arguments):\n    {body}\n"

    def cluster(self, task_id: str) -> str:
        """Returns the task itself: MBPP's tasks are independent, its two benchmarks share them."""
        return task_id

    def judge(self, sandbox: Sandbox, task_id: str, code: str) -> Judgment:
        """Returns both verdicts on a program."""
        task = self.tasks[task_id]
        gold = self.gold_values(sandbox, task)
        if isinstance(gold, str):
            unknown = (Status.INFRA, f"the gold program gave no values on this machine: {gold}")
            statuses = dict.fromkeys(self.verdict_names, unknown)
            return Judgment(statuses=statuses, isolation=sandbox.level)
        called = call_groups(
            sandbox,
            code,
            task.entry_point,
            task.inputs,
            [
                [max(MIN_CALL_SECONDS, _GOLD_FACTOR * each) for each in group]
                for group in gold.seconds
            ],
            _LIMITS,
        )
        base, plus = (
            _verdict_on(task, inputs, expected, calls)
            for inputs, expected, calls in zip(task.inputs, gold.values, called.groups, strict=True)
        )
        return Judgment(
            statuses=dict(
                zip(
                    self.verdict_names,
                    (base, plus if base[0] is Status.PASS else base),
                    strict=True,
                )
            ),
            isolation=called.outcome.isolation,
            seconds=called.outcome.wall_seconds,
        )

    def gold_values(self, sandbox: Sandbox, task: MbppTask) -> Gold | str:
        """Returns the right values, from the folder where they are kept, or why there are none."""
        path = self._gold_folder / f"{digest(task.digest, self._python)}.json"
        if path.exists():
            return _read_gold(path, task)
        called = call_groups(
            sandbox,
            task.solution,
            task.entry_point,
            task.inputs,
            [[_GOLD_CALL_SECONDS] * len(group) for group in task.inputs],
            _LIMITS,
        )
        for group in called.groups:
            if group and group[-1].status is not CallStatus.VALUE:
                return f"{group[-1].status}, {group[-1].detail}"
        try:
            expected = [
                [values.encode(expected_value(task.entry_point, call.value)) for call in group]
                for group in called.groups
            ]
        except values.NotAValue as error:
            return f"no plain data, {error}"
        content = {
            "task_id": task.task_id,
            "values": expected,
            "seconds": [[call.seconds for call in group] for group in called.groups],
        }
        keep_json(path, content)
        return _read_gold(path, task)


def load_tasks(path: Path) -> dict[str, MbppTask]:
    """Returns the tasks of an EvalPlus file. Raises ValueError with file and line."""
    tasks: dict[str, MbppTask] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                task = _task_of_line(line, f"{path}:{number}")
                if task.task_id in tasks:
                    raise ValueError(f"{path}:{number}: {task.task_id} is there twice")
                tasks[task.task_id] = task
    if not tasks:
        raise ValueError(f"{path}: no tasks; expected MbppPlus.jsonl in the EvalPlus format")
    return tasks


def _task_of_line(line: bytes, where: str) -> MbppTask:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: {type(fields).__name__}, expected an object")
    if fields.get("plus_input") == {}:  # how the published file writes that a task has none
        fields["plus_input"] = []
    for name, kind in _FIELDS.items():
        if not isinstance(fields.get(name), kind):
            raise ValueError(
                f"{where}: field {name!r} is {str(fields.get(name))[:40]!r}; expected the "
                f"fields of MbppPlus.jsonl in the EvalPlus format: {', '.join(_FIELDS)}"
            )
    task_id = fields["task_id"]
    try:
        base, plus = (
            tuple(typed_arguments(task_id, arguments) for arguments in fields[name])
            for name in ("base_input", "plus_input")
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where}: inputs of {task_id} have another shape ({error})") from error
    return MbppTask(
        task_id=task_id,
        prompt=fields["prompt"],
        entry_point=fields["entry_point"],
        solution=fields["prompt"] + fields["canonical_solution"],
        inputs=(base, plus),
        tolerance=float(fields["atol"]),
        digest=digest(GRADER, json.dumps({name: fields[name] for name in _FIELDS}, sort_keys=True)),
    )


def _verdict_on(
    task: MbppTask, inputs: Sequence[Sequence[Any]], expected: Sequence[Any], calls: Sequence[Call]
) -> tuple[Status, str]:
    """Returns what one group of inputs says: the first call that is not right decides."""
    for number, call in enumerate(calls):
        match call.status:
            case CallStatus.RAISED:
                return Status.ERROR, f"input {number}: raised {call.detail}"
            case CallStatus.TIMED_OUT:
                return Status.TIMEOUT, f"input {number}: timed out"
            case CallStatus.DIED:
                return Status.ERROR, f"input {number}: {call.detail}"
        if not is_right(
            task.entry_point, inputs[number], expected[number], call.value, task.tolerance
        ):
            return Status.FAIL, f"input {number}: wrong value {_shown(call.value)}"
    return (Status.PASS, "") if len(calls) == len(inputs) else (Status.ERROR, "calls are missing")


def _shown(value: Any) -> str:
    try:
        return ascii(value)[:120]
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return f"of type {type(value).__name__}, too long to be shown"


def _read_gold(path: Path, task: MbppTask) -> Gold:
    try:
        content = json.loads(path.read_bytes())
        gold = Gold(
            values=tuple(tuple(map(values.decode, group)) for group in content["values"]),
            seconds=tuple(tuple(map(float, group)) for group in content["seconds"]),
        )
        expected = list(map(len, task.inputs))
        for found in (list(map(len, gold.values)), list(map(len, gold.seconds))):
            if found != expected:
                raise ValueError(f"of {found} calls, expected {expected}")
        return gold
    except DAMAGED as error:
        raise ValueError(
            f"{path}: no gold values ({error}); delete it: it is made again"
        ) from error
