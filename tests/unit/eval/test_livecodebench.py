from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from eval_files import other_system_python
from livecodebench_files import RISES, SUM, Tests, lcb_row, write_lcb
from rich.console import Console

from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.grade_tool import GradeOptions, run
from mira_megatron.eval.livecodebench import LiveCodeBench, batches, with_header
from mira_megatron.eval.livecodebench_data import Edition
from mira_megatron.eval.livecodebench_tests import LcbTest
from mira_megatron.eval.sandbox.contract import Job, Outcome, Sandbox
from mira_megatron.eval.verdicts import Form, Sample, Status

TASK = "abc300_a"
V6 = Edition(release="v6")
RIGHT = "input()\nprint(sum(map(int, input().split())))\n"
RIGHT_CLASS = """\
class Solution:
    def rises(self, nums: List[int], k: Optional[int]) -> List[int]:
        return sum(a < b for a, b in pairwise(nums)), len(nums) and 1 + k
"""


def opened(folder: Path, tests: Tests = SUM, function: str | None = None) -> LiveCodeBench:
    return LiveCodeBench(write_lcb(folder, lcb_row(tests=tests, function=function)), V6)


def judged(sandbox: Sandbox, benchmark: LiveCodeBench, code: str) -> tuple[Status, str]:
    return benchmark.judge(sandbox, TASK, code).statuses["livecodebench"]


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (RIGHT, (Status.PASS, "")),
        (f"from __future__ import annotations\n{RIGHT}", (Status.PASS, "")),
        ("print(6)", (Status.FAIL, "test 2 of 2: wrong answer")),
        ("print(input())", (Status.FAIL, "test 1 of 2: wrong answer")),
        ("import os\nos._exit(0)", (Status.FAIL, "test 1 of 2: wrong answer")),
        ("print(gcd(1", (Status.ERROR, "test 1 of 2: exit code 1: SyntaxError")),
        (f"{RIGHT}raise OSError", (Status.ERROR, "test 1 of 2: exit code 1: OSError")),
    ],
)
def test_a_program_that_prints_passes_where_all_that_it_prints_is_right(
    sandbox: Sandbox, tmp_path: Path, code: str, verdict: tuple[Status, str]
) -> None:
    status, detail = judged(sandbox, opened(tmp_path), code)
    assert status is verdict[0], detail
    assert detail.startswith(verdict[1])


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (RIGHT_CLASS, (Status.PASS, "")),
        ("def rises(a, k):\n    return [len(a) and 1, len(a) and k + 1]", (Status.PASS, "")),
        (
            "class Solution:\n    def rises(self, nums, k):\n        return [1, 2]",
            (Status.FAIL, "test 2"),
        ),
        ("class Solution:\n    pass", (Status.ERROR, "test 1 of 2: AttributeError")),
        ("def other(): pass", (Status.ERROR, "test 1 of 2: NameError")),
        ("import os\nos._exit(0)", (Status.ERROR, "test 1 of 2: the process ended")),
        (
            "class Same(list):\n    __eq__ = lambda *a: True\n    __len__ = lambda self: 2\n"
            "class Solution:\n    def rises(self, *a):\n        return Same()",
            (Status.FAIL, "test 1"),
        ),
        (
            "class Any:\n    __eq__ = lambda *a: True\ndef rises(*a):\n    return Any()",
            (Status.FAIL, "test 1"),
        ),
    ],
)  # fmt: skip
def test_a_function_passes_where_all_that_it_returns_is_right(
    sandbox: Sandbox, tmp_path: Path, code: str, verdict: tuple[Status, str]
) -> None:
    status, detail = judged(sandbox, opened(tmp_path, RISES, "rises"), code)
    assert status is verdict[0], detail
    assert detail.startswith(verdict[1])


@pytest.mark.parametrize("call_seconds", [0, "6", 1.5, True])
def test_a_limit_that_is_no_number_of_seconds_is_refused(tmp_path: Path, call_seconds: Any) -> None:
    write_lcb(tmp_path, lcb_row())
    with pytest.raises(ValueError, match="expected a whole number above 0"):
        LiveCodeBench(tmp_path, V6, call_seconds=call_seconds)


def test_a_call_that_takes_too_long_is_a_timeout(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = write_lcb(tmp_path, lcb_row(tests=RISES, function="rises"))
    benchmark = LiveCodeBench(folder, V6, call_seconds=1)
    assert benchmark.grader == "livecodebench/1 v6 1 s"
    code = "def rises(nums, k):\n    while True: pass"
    assert judged(sandbox, benchmark, code) == (Status.TIMEOUT, "test 1 of 2: out of time")


class _Recording:
    """A real sandbox that keeps the jobs that it was given."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.level = sandbox.level
        self.jobs: list[Job] = []

    def run(self, job: Job) -> Outcome:
        self.jobs.append(job)
        return self._sandbox.run(job)


@pytest.mark.parametrize("function", [None, "rises"])
def test_right_answers_are_never_given_to_the_sandbox(
    sandbox: Sandbox, tmp_path: Path, function: str | None
) -> None:
    recording = _Recording(sandbox)
    tests = [(f"{number}", "987654321") for number in range(6)]
    code = "def rises(number):\n    return 987654321" if function else "print(987654320 + 1)"
    if function:
        code = code.replace("987654321", "987654320 + 1")
    status, detail = judged(recording, opened(tmp_path, tests, function), code)
    assert status is Status.PASS, detail
    assert len(recording.jobs) == 2
    for job in recording.jobs:
        given = [job.stdin, *job.files.values(), repr((job.argv, job.environment)).encode()]
        assert not any(b"987654321" in each for each in given)


def test_a_wrong_program_is_given_few_of_its_tests(sandbox: Sandbox, tmp_path: Path) -> None:
    recording = _Recording(sandbox)
    benchmark = opened(tmp_path, [("x", "y")] * 100)
    assert judged(recording, benchmark, "print(0)") == (
        Status.FAIL,
        "test 1 of 100: wrong answer",
    )
    assert len(json.loads(recording.jobs[0].stdin)["inputs"]) == 4
    assert len(recording.jobs) == 1


def test_verdicts_are_of_the_python_that_runs_programs_and_not_of_the_one_that_grades(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = opened(tmp_path).task_digest(TASK)
    monkeypatch.setattr(sys, "version", "of the one that grades")
    assert opened(tmp_path).task_digest(TASK) == digest
    other_system_python(tmp_path, monkeypatch)
    assert opened(tmp_path).task_digest(TASK) != digest


def test_batches_hold_every_test_once_in_order_and_never_too_much() -> None:
    sizes = [1] * 100 + [1 << 24] * 3 + [1 << 26] + [1] * 3
    tests = [LcbTest(input="i" * size, output=str(n), is_functional=False)
             for n, size in enumerate(sizes)]  # fmt: skip
    found = list(batches(tests))
    assert [test.output for batch in found for test in batch] == [str(n) for n in range(len(sizes))]
    assert [len(batch) for batch in found] == [4, 64, 33, 1, 1, 1, 3]


def test_the_last_of_many_tests_counts(sandbox: Sandbox, tmp_path: Path) -> None:
    benchmark = opened(tmp_path, [(str(number), str(number)) for number in range(70)])
    assert judged(sandbox, benchmark, "print(input())") == (Status.PASS, "")
    wrong = "n = input()\nprint(n if n != '69' else 0)"
    assert judged(sandbox, benchmark, wrong) == (Status.FAIL, "test 70 of 70: wrong answer")


def test_the_header_goes_behind_imports_of_the_future_alone() -> None:
    code = '"""Doc."""\nfrom __future__ import (\n    annotations,\n)\nx = 1'
    compile(with_header(code), "program", "exec")
    assert with_header("x = '__future__'").endswith("\nx = '__future__'")


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("```python\na\n```", "a", None),
        ("```python\na\n```\nor\n```\nb\nc\n```\nDone.", "b\nc", None),
        ("<think>```\nx\n```</think>\n```python\na\n```", "a", None),
        ("<think>```\nx\n```", None, "unfinished_thought"),
        ("```python\na\n```\n```python\nb", "", "empty"),
        ("```python\na", None, "no_code_block"),
        ("a", None, "no_code_block"),
        ("", None, "empty"),
    ],
)
def test_the_code_of_an_answer_is_between_its_last_two_fences(
    tmp_path: Path, text: str, code: str | None, reason: str | None
) -> None:
    sample = Sample(task_id=TASK, number=0, text=text, form=Form.ANSWER)
    extraction = opened(tmp_path).extract(sample)
    assert (extraction.code or "", extraction.reason) == (code or "", reason)


def test_a_chat_is_asked_with_the_starter_code_or_to_read_and_print(tmp_path: Path) -> None:
    system, user = opened(tmp_path).prompt(TASK, Style.CHAT).messages
    assert system["role"] == "system"
    assert user["content"].startswith("### Question:\nPrint the sum.\n\n### Format: Read the input")
    assert "```python\n# YOUR CODE HERE\n```" in user["content"]
    asked = opened(tmp_path, RISES, "rises").prompt(TASK, Style.CHAT)
    _, user = asked.messages
    assert "```python\nclass Solution:\n    def rises(self, nums, k):" in user["content"]
    assert asked.stop == ()


@pytest.mark.parametrize(("tests", "function"), [(SUM, None), (RISES, "rises")])
def test_a_base_model_is_shown_one_solved_task_and_an_open_answer(
    tmp_path: Path, tests: Tests, function: str | None
) -> None:
    prompt = opened(tmp_path, tests, function).prompt(TASK, Style.COMPLETION)
    assert prompt.text.count("### Question\n") == prompt.text.count("### Answer\n\n") == 2
    assert prompt.text.count("### Starter Code\n") == (2 if function else 0)
    assert prompt.text.endswith("### Answer\n\n")
    assert prompt.stop == ("###",)


GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("kind", ["stdin", "function"])
def test_the_prompts_of_a_version_keep_their_words(tmp_path: Path, kind: str) -> None:
    tests, function = (RISES, "rises") if kind == "function" else (SUM, None)
    benchmark = opened(tmp_path, tests, function)
    chat = benchmark.prompt(TASK, Style.CHAT)
    shown = "".join(f"[{each['role']}]\n{each['content']}" for each in chat.messages)
    completion = benchmark.prompt(TASK, Style.COMPLETION)
    written = f"{chat.template}\n{shown}{completion.template}\n{completion.text}"
    assert written == (GOLDEN / f"livecodebench_prompts_{kind}.txt").read_text()


def test_the_solved_examples_are_right_programs(sandbox: Sandbox, tmp_path: Path) -> None:
    for tests, function in (
        ([("[3,5,4,9]", "2")], "countRises"),
        ([("3 10\n2 3 4\n", "Yes"), ("1 1\n2\n", "No")], None),
    ):
        benchmark = opened(tmp_path, tests, function)
        shown = benchmark.prompt(TASK, Style.COMPLETION).text
        code = shown.partition("### Answer\n\n")[2].partition("### Question")[0]
        assert judged(sandbox, benchmark, code) == (Status.PASS, "")


def test_facts_name_release_window_and_the_days_that_it_has(tmp_path: Path) -> None:
    write_lcb(tmp_path, lcb_row("a", day="2025-01-04"), lcb_row("b", day="2025-04-06"))
    facts = LiveCodeBench(tmp_path, Edition(release="v6")).facts(())
    assert json.loads(json.dumps(facts)) == {
        "edition": "v6",
        "release": "v6",
        "first_contest": "2025-01-04",
        "last_contest": "2025-04-06",
        "call_seconds": 6,
        "python": None,
    }


def test_graded_predictions_carry_release_and_window(tmp_path: Path) -> None:
    write_lcb(tmp_path / "lcb", lcb_row(), lcb_row("b", day="2024-01-01"))
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "sampling: {greedy: {}}\nbenchmarks:\n  livecodebench:\n    kind: livecodebench\n"
        "    category: code_generation\n    file: lcb\n    protocol: livecodebench\n"
        "    sampling: greedy\n    options: {release: v6, from: 2025-01-01}\n"
    )
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps([{"question_id": TASK, "code_list": [RIGHT, "print(6)"]}]))
    options = GradeOptions(
        suite=suite,
        benchmark="livecodebench",
        predictions=predictions,
        output=tmp_path / "out",
        data_folder=tmp_path,
        cache=None,
        min_isolation=3,
        workers=2,
        is_subset=False,
    )
    assert run(Console(quiet=True), options) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["grader"] == "livecodebench/1 v6 2025-01-01.."
    assert results["options"] == {"release": "v6", "from": "2025-01-01"}
    assert list(results["data"]["sha256"]) == ["test6.jsonl"]
    assert results["scores"]["livecodebench"]["pass@1"] == 50.0
