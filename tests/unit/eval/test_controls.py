from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bigcodebench_files import TASK, bcb_row, opened_bcb
from eval_files import ADD, HALF, write_mbpp, write_multipl_e

from mira_megatron.eval.benchmark import Prompt, Style
from mira_megatron.eval.controls import run_controls, write_controls
from mira_megatron.eval.mbpp import Mbpp
from mira_megatron.eval.multipl_e import MultiplE
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.verdicts import Extraction, Judgment, Sample, Status

UNSURE = {
    **ADD,
    "task_id": "Mbpp/1003",
    "entry_point": "unsure",
    "canonical_solution": "import os\ndef unsure(a, b):\n    return os.urandom(8)\n",
}
ANY = {**ADD, "task_id": "Mbpp/1004", "entry_point": "are_equivalent"}
ANY["canonical_solution"] = "def are_equivalent(a, b):\n    return True\n"


def opened(folder: Path, *tasks: dict[str, object]) -> Mbpp:
    return Mbpp(write_mbpp(folder / "tasks.jsonl", *tasks), folder / "cache")


def test_gold_that_does_not_pass_here_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    benchmark = opened(tmp_path, ADD, UNSURE, HALF)
    controls = run_controls(benchmark, benchmark.task_ids, sandbox, tmp_path / "cache", workers=2)
    assert (controls.num_tasks, controls.num_gold, controls.num_bad) == (3, 3, 3)
    assert controls.failing_ids("mbpp") == controls.failing_ids("mbpp_plus") == ["Mbpp/1003"]
    assert controls.passing_bad == ()
    assert controls.versions["python3"].startswith("Python 3")
    write_controls(tmp_path / "controls.json", "mbpp", controls)
    written = json.loads((tmp_path / "controls.json").read_text())
    assert written["grader"] == "mbpp/1"
    assert written["isolation"] >= 3
    assert [each["status"] for each in written["failing"]] == ["fail", "fail"]


def test_task_where_any_value_is_right_has_a_bad_program_all_the_same(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    benchmark = opened(tmp_path, ANY)
    controls = run_controls(benchmark, benchmark.task_ids, sandbox, tmp_path / "cache", workers=1)
    assert (controls.failing, controls.passing_bad, controls.num_bad) == ((), (), 1)


def test_gold_without_values_spares_the_bad_program(sandbox: Sandbox, tmp_path: Path) -> None:
    broken = {**ADD, "canonical_solution": "def add(a, b):\n    raise ValueError\n"}
    benchmark = opened(tmp_path, broken, HALF)
    controls = run_controls(benchmark, benchmark.task_ids, sandbox, tmp_path / "cache", workers=1)
    assert [each.status for each in controls.failing] == [Status.INFRA, Status.INFRA]
    assert (controls.num_gold, controls.num_bad) == (2, 1)


class BrokenGrader(Mbpp):
    """Passes whatever it is given, as a grader does whose comparison is broken."""

    def judge(self, sandbox: Sandbox, task_id: str, code: str) -> Judgment:
        return Judgment(statuses={"mbpp": (Status.PASS, "")}, isolation=3)


def test_bad_program_that_passes_stops(sandbox: Sandbox, tmp_path: Path) -> None:
    benchmark = BrokenGrader(write_mbpp(tmp_path / "tasks.jsonl"), tmp_path / "cache")
    controls = run_controls(benchmark, benchmark.task_ids, sandbox, tmp_path / "cache", workers=1)
    with pytest.raises(ValueError, match=r"2 known-bad programs pass, the first for mbpp Mbpp/100"):
        controls.check("mbpp")


class WithoutPrograms:
    """A benchmark that knows neither right nor wrong programs; it passes what has no answer."""

    name = "mine"
    grader = "mine/1"
    verdict_names = ("mine",)
    task_ids = ("a", "b")

    def __init__(self, right: str) -> None:
        self.right = right
        self.judged: list[str] = []

    def prompt(self, task_id: str, style: Style) -> Prompt:
        return Prompt(template="mine/1", max_tokens=1)

    def extract(self, sample: Sample) -> Extraction:
        return Extraction(code=sample.text)

    def task_digest(self, task_id: str) -> str:
        return task_id

    def judge(self, sandbox: Sandbox, task_id: str, code: str) -> Judgment:
        self.judged.append(code)
        status = Status.PASS if code == self.right else Status.FAIL
        return Judgment(statuses={"mine": (status, "")}, isolation=3)

    def gold(self, task_id: str) -> str | None:
        return "gold" if task_id == "a" else None

    def cluster(self, task_id: str) -> str:
        return task_id


def test_an_empty_program_is_bad_where_no_better_one_is_known(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    controls = run_controls(WithoutPrograms("gold"), ["a", "b"], sandbox, tmp_path, workers=1)
    assert (controls.num_gold, controls.num_bad, controls.failing) == (1, 2, ())
    controls.check("mine")
    vacuous = WithoutPrograms("")
    controls = run_controls(vacuous, ["a", "b"], sandbox, tmp_path / "other", workers=1)
    assert controls.failing_ids("mine") == ["a"]
    assert [each.task_id for each in controls.passing_bad] == ["a", "b"]


def test_controls_that_were_run_here_are_not_run_again(sandbox: Sandbox, tmp_path: Path) -> None:
    benchmark = WithoutPrograms("gold")
    first = run_controls(benchmark, ["a"], sandbox, tmp_path, workers=1)
    assert run_controls(benchmark, ["a"], sandbox, tmp_path, workers=1) == first
    assert benchmark.judged == ["gold", ""]


def test_a_language_is_its_tasks_control(sandbox: Sandbox, tmp_path: Path) -> None:
    benchmark = MultiplE(write_multipl_e(tmp_path / "tasks.jsonl", "sh"), "sh")
    controls = run_controls(benchmark, benchmark.task_ids, sandbox, tmp_path, workers=1)
    assert (controls.failing, controls.passing_bad) == ((), ())
    assert (controls.num_tasks, controls.num_gold) == (1, 0)
    assert controls.versions["bash"].startswith("GNU bash")


@pytest.mark.parametrize(("run", "said"), [("false", "does not pass"), ("{bash} said", "not pass")])
def test_a_language_that_does_not_work_here_stops(
    sandbox: Sandbox, tmp_path: Path, run: str, said: str
) -> None:
    benchmark = MultiplE(write_multipl_e(tmp_path / "tasks.jsonl", "sh"), "sh")
    benchmark.language = replace(benchmark.language, run=run)
    with pytest.raises(ValueError, match=said):
        run_controls(benchmark, benchmark.task_ids, sandbox, tmp_path, workers=1)


def test_a_wrong_program_that_passes_in_a_language_stops(sandbox: Sandbox, tmp_path: Path) -> None:
    benchmark = MultiplE(write_multipl_e(tmp_path / "tasks.jsonl", "sh"), "sh")
    # The task's own tests are left out, what is added behind them is not.
    only_added = "tail -n 2 program.sh | grep -v run_test | {bash} -e"
    benchmark.language = replace(benchmark.language, run=f"{{bash}} -c '{only_added}'")
    controls = run_controls(benchmark, benchmark.task_ids, sandbox, tmp_path, workers=1)
    with pytest.raises(ValueError, match="1 known-bad programs pass"):
        controls.check("multipl_e_sh")


def test_a_program_that_leaves_before_its_tests_is_bigcodebenchs_bad_one(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    missing = bcb_row("BigCodeBench/8", canonical_solution="    import nowhere_to_be_found\n")
    benchmark = opened_bcb(tmp_path, bcb_row(), missing, hard=(TASK,))
    controls = run_controls(benchmark, benchmark.task_ids, sandbox, tmp_path / "cache", workers=1)
    assert controls.failing_ids("bigcodebench_full") == ["BigCodeBench/8"]
    assert controls.failing_ids("bigcodebench_hard") == []
    assert (controls.num_bad, controls.passing_bad) == (2, ())
