from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from eval_files import ADD, HALF, other_system_python, write_mbpp

from mira_megatron.eval.mbpp import Gold, Mbpp, load_tasks
from mira_megatron.eval.mbpp_inputs import typed_arguments
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.verdicts import Form, Sample, Status


def judged(sandbox: Sandbox, folder: Path, code: str, task_id: str = "Mbpp/1001") -> list[Status]:
    benchmark = Mbpp(write_mbpp(folder / "tasks.jsonl"), folder)
    statuses = benchmark.judge(sandbox, task_id, code).statuses
    return [statuses[name][0] for name in ("mbpp", "mbpp_plus")]


@pytest.mark.parametrize(
    ("code", "base", "plus"),
    [
        ("def add(a, b):\n    return a + b\n", Status.PASS, Status.PASS),
        # Right on the base inputs alone.
        ("def add(a, b):\n    return abs(a) + abs(b)\n", Status.PASS, Status.FAIL),
        ("def add(a, b):\n    return a - b\n", Status.FAIL, Status.FAIL),
        # Wrong on the base inputs alone: MBPP+ asks for both.
        ("def add(a, b):\n    return 4 if a == 2 else 0\n", Status.FAIL, Status.FAIL),
        ("def add(a, b)\n", Status.ERROR, Status.ERROR),
        ("import os\nos._exit(0)\n", Status.ERROR, Status.ERROR),
    ],
)
def test_one_program_gets_two_verdicts(
    sandbox: Sandbox, tmp_path: Path, code: str, base: Status, plus: Status
) -> None:
    assert judged(sandbox, tmp_path, code) == [base, plus]


def test_every_gold_program_passes(sandbox: Sandbox, tmp_path: Path) -> None:
    benchmark = Mbpp(write_mbpp(tmp_path / "tasks.jsonl"), tmp_path)
    for task_id in benchmark.task_ids:
        statuses = benchmark.judge(sandbox, task_id, benchmark.gold(task_id)).statuses
        assert {status for status, _ in statuses.values()} == {Status.PASS}


def test_a_loop_times_out_at_the_calls_limit(sandbox: Sandbox, tmp_path: Path) -> None:
    code = "def add(a, b):\n    while True: pass\n"
    assert judged(sandbox, tmp_path, code) == [Status.TIMEOUT, Status.TIMEOUT]


@pytest.mark.parametrize("value", ["10 ** 5000", "[10 ** 5000]", "'x' * 10 ** 6"])
def test_an_endless_wrong_value_is_a_wrong_value(
    sandbox: Sandbox, tmp_path: Path, value: str
) -> None:
    code = f"def add(a, b):\n    return {value}\n"

    assert judged(sandbox, tmp_path, code) == [Status.FAIL, Status.FAIL]


def test_gold_that_fails_here_says_nothing_of_the_program(sandbox: Sandbox, tmp_path: Path) -> None:
    broken = {**ADD, "canonical_solution": "\ndef add(a, b):\n    raise OSError\n"}
    benchmark = Mbpp(write_mbpp(tmp_path / "tasks.jsonl", broken), tmp_path)
    statuses = benchmark.judge(sandbox, "Mbpp/1001", "def add(a, b):\n    return a + b\n").statuses
    assert {status for status, _ in statuses.values()} == {Status.INFRA}


def test_gold_values_are_kept_and_those_of_a_changed_task_are_others(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    judged(sandbox, tmp_path, "def add(a, b):\n    return a + b\n")
    assert len(list(tmp_path.glob("gold/*.json"))) == 1
    changed = {**ADD, "canonical_solution": "\ndef add(a, b):\n    return a - b\n"}
    benchmark = Mbpp(write_mbpp(tmp_path / "other.jsonl", changed), tmp_path)
    statuses = benchmark.judge(sandbox, "Mbpp/1001", "def add(a, b):\n    return a - b\n").statuses
    assert statuses["mbpp"][0] is Status.PASS
    assert len(list(tmp_path.glob("gold/*.json"))) == 2


def test_gold_values_are_known_by_the_python_that_runs_programs_and_not_by_the_one_that_grades(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_mbpp(tmp_path / "tasks.jsonl", ADD)

    def gold_and_digest() -> tuple[bool, str]:
        benchmark = Mbpp(path, tmp_path / "cache")
        (task,) = benchmark.tasks.values()
        gold = benchmark.gold_values(sandbox, task)
        return isinstance(gold, Gold), benchmark.task_digest(task.task_id)

    has_gold, digest = gold_and_digest()
    assert has_gold
    monkeypatch.setattr(sys, "version", "of the one that grades")
    assert gold_and_digest() == (True, digest)
    assert len(list((tmp_path / "cache/gold").iterdir())) == 1
    other_system_python(tmp_path, monkeypatch)
    has_gold, other = gold_and_digest()
    assert (has_gold, other == digest) == (False, False)


def test_damaged_gold_values_are_named(sandbox: Sandbox, tmp_path: Path) -> None:
    judged(sandbox, tmp_path, "def add(a, b):\n    return a + b\n")
    (kept,) = tmp_path.glob("gold/*.json")
    fewer = '{"values": [["1"], []], "seconds": [[0], []]}'
    for content in ("{", "[]", '{"values": [[1]], "seconds": 1}', fewer, "[" * 100_000):
        kept.write_text(content)
        with pytest.raises(ValueError, match="delete it"):
            judged(sandbox, tmp_path, "def add(a, b):\n    return a + b\n")


def test_a_completion_stands_behind_the_prompt_and_a_program_alone(tmp_path: Path) -> None:
    benchmark = Mbpp(write_mbpp(tmp_path / "tasks.jsonl"), tmp_path)
    sample = Sample(task_id="Mbpp/1001", number=0, text="def add(a, b): ...")
    assert benchmark.extract(sample).code == f"{ADD['prompt']}def add(a, b): ..."
    whole = Sample(task_id="Mbpp/1001", number=0, text="x = 1", form=Form.PROGRAM)
    assert benchmark.extract(whole).code == "x = 1"
    empty = Sample(task_id="Mbpp/1001", number=0, text=" \n")
    assert (benchmark.extract(empty).code, benchmark.extract(empty).reason) == (None, "empty")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_input": None}, "field 'base_input'"),
        ({"atol": "0"}, "field 'atol'"),
        ({"task_id": "Mbpp/2", "base_input": [[1, 2]]}, "another shape"),
        ({"task_id": "Mbpp/1002"}, "is there twice"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write_mbpp(tmp_path / "tasks.jsonl", HALF, {**ADD, **change})
    with pytest.raises(ValueError, match=rf"tasks\.jsonl:2: .*{said}"):
        load_tasks(path)


def test_a_task_without_plus_inputs_is_read(tmp_path: Path) -> None:
    tasks = load_tasks(write_mbpp(tmp_path / "tasks.jsonl", {**ADD, "plus_input": {}}))
    assert tasks["Mbpp/1001"].inputs[1] == ()


@pytest.mark.parametrize(
    ("number", "arguments", "typed"),
    [
        (2, [[1, 2], [3]], [(1, 2), (3,)]),
        (63, [[[1, 2], [3, 4]]], [[(1, 2), (3, 4)]]),
        (75, [[[1, 2]], 3], [[(1, 2)], 3]),
        (106, [[1], [2]], [[1], (2,)]),
        (115, [[[1], []]], [[{1}, {}]]),
        (124, ["1", "2j"], [1.0, 2j]),
        (252, ["1+2j"], [1 + 2j]),
        (259, [[[1]], [[2]]], [((1,),), ((2,),)]),
        (278, [[1, [2]]], [(1, (2,))]),
        (307, [[1], 0, 5], [(1,), 0, 5]),
        (580, [[1, [2, [3]]]], [(1, (2, (3,)))]),
        (722, [{"a": [1]}, 2, 3], [{"a": (1,)}, 2, 3]),
        (3, [[1, [2]]], [[1, [2]]]),
    ],
)
def test_types_that_json_loses_come_back(
    number: int, arguments: list[Any], typed: list[Any]
) -> None:
    assert repr(typed_arguments(f"Mbpp/{number}", arguments)) == repr(typed)
