from __future__ import annotations

import json
from pathlib import Path

import pytest
from bigcodebench_files import (
    CODE_PROMPT,
    COMPLETE_PROMPT,
    SOLUTION,
    TASK,
    TESTS,
    bcb_row,
    opened_bcb,
    write_bcb,
)
from eval_files import write_lines

from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.bigcodebench import FULL, HARD, BigCodeBench
from mira_megatron.eval.bigcodebench_data import BcbOptions, bcb_options, load_tasks
from mira_megatron.eval.grading import grade
from mira_megatron.eval.sandbox.contract import Job, Outcome, Sandbox, SandboxError
from mira_megatron.eval.verdicts import Form, Sample, Status

RIGHT = f"import json\ndef task_func(text):\n{SOLUTION}"


class _Broken:
    """A sandbox that cannot be built."""

    def __init__(self, level: int) -> None:
        self.level = level

    def run(self, job: Job) -> Outcome:
        raise SandboxError("no namespaces left")


def judged(sandbox: Sandbox, benchmark: BigCodeBench, program: str) -> tuple[Status, str]:
    code = benchmark.extract(Sample(task_id=TASK, number=0, text=program, form=Form.PROGRAM)).code
    assert code is not None
    return benchmark.judge(sandbox, TASK, code).statuses[FULL]


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        (RIGHT, (Status.PASS, "")),
        # Calibrated: the import comes with the task's own code.
        (f"def task_func(text):\n{SOLUTION}", (Status.PASS, "")),
        (RIGHT.replace("sum", "max"), (Status.FAIL, "test_case_1 failed: AssertionError: 4 != 7")),
        ("x = 1", (Status.FAIL, "test_case_1 failed: AssertionError: None != 7")),
        ("def task_func(text):\n    return len(x)", (Status.ERROR, "test_case_1 error: NameError")),
        ("def task_func(", (Status.ERROR, "does not load: SyntaxError")),
        ("import no_such_library", (Status.ERROR, "does not load: ModuleNotFoundError")),
        ("raise SystemExit(0)", (Status.ERROR, "does not load: SystemExit")),
        ("import os\nos._exit(0)", (Status.FAIL, "3 of 3 tests did not run; exit code 0")),
        ("import os\nos.kill(os.getpid(), 9)", (Status.FAIL, "3 of 3 tests did not run; signal 9")),
        ("import os\nos.kill(os.getppid(), 9)", (Status.ERROR, "nothing was heard of its end")),
    ],
)
def test_a_program_passes_where_all_of_its_tests_do(
    sandbox: Sandbox, tmp_path: Path, program: str, verdict: tuple[Status, str]
) -> None:
    status, detail = judged(sandbox, opened_bcb(tmp_path), program)
    assert (status, detail[: len(verdict[1])]) == verdict, detail


ATTACKS = {
    "ends the process in a test": "def task_func(text):\n    import os\n    os._exit(0)",
    "ends the process by an exception": "def task_func(text):\n    raise SystemExit(0)",
    "ends as its module does": (
        "import atexit, os\natexit.register(os._exit, 0)\ndef task_func(text):\n    return 7"
    ),
    "skips its tests": (
        "import unittest\ndef task_func(text):\n    raise unittest.SkipTest('no reason')"
    ),
    "ends its tests as unittest does at a first failure": (
        "import unittest\ndef task_func(text):\n    raise unittest.case._ShouldStop"
    ),
    "has an exception end its tests": (
        "import unittest\nunittest.case._ShouldStop = ValueError\n"
        "def task_func(text):\n    raise ValueError"
    ),
    "changes assertions at once": (
        "import unittest\nfor name in dir(unittest.TestCase):\n"
        "    if name.startswith('assert'):\n"
        "        setattr(unittest.TestCase, name, lambda *a, **k: None)\n"
        "def task_func(text):\n    return 0"
    ),
    "changes assertions in a test": (
        "def task_func(text):\n    import unittest\n"
        "    unittest.TestCase.assertEqual = lambda *a: None\n"
        "    unittest.TestCase._getAssertEqualityFunc = lambda *a: lambda *b, **k: None\n"
        "    unittest.TestCase.assertAlmostEqual = lambda *a: None\n"
        "    if text == '[': raise ValueError\n    return 0"
    ),
    "changes how tests are found": (
        "import unittest\nunittest.TestLoader.loadTestsFromTestCase = "
        "lambda *a: unittest.TestSuite()\ndef task_func(text):\n    return 0"
    ),
    "changes how tests are run": (
        "import unittest\nunittest.TestSuite.run = lambda *a: None\n"
        "def task_func(text):\n    return 0"
    ),
    "prints what a runner prints": (
        "import sys\nprint('Ran 3 tests in 0.0s\\n\\nOK', file=sys.stderr)\n"
        "def task_func(text):\n    return 0"
    ),
    "writes a whole report and ends": (
        "import json, os\nevents = [{'loaded': None}, {'done': True}]\n"
        "for name in ('test_case_1', 'test_case_2', 'test_case_3'):\n"
        "    events.insert(1, {'test': name, 'outcome': 'passed', 'said': ''})\n"
        "report = ''.join(json.dumps(event) + chr(10) for event in events).encode()\n"
        "for number in range(3, 64):\n    try:\n        os.write(number, report)\n"
        "    except OSError:\n        pass\nos._exit(0)"
    ),
    "writes the record of the driver": (
        "import os\nfor number in range(3, 64):\n    try:\n"
        "        descriptor = os.open(f'/proc/{os.getppid()}/fd/{number}', os.O_WRONLY)\n"
        '        os.write(descriptor, b\'{"nonce": "", "exit_code": 0, "events": []}\')\n'
        "    except OSError:\n        pass\nos.kill(os.getppid(), 9)"
    ),
    "takes another test class": (
        "import builtins, unittest\nclass Nothing(unittest.TestCase):\n"
        "    def test_case_1(self): pass\n"
        "builtins.__build_class__ = lambda *a, **k: Nothing\n"
        "def task_func(text):\n    return 0"
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_program_that_does_something_to_its_tests_has_not_passed(
    sandbox: Sandbox, tmp_path: Path, attack: str
) -> None:
    status, detail = judged(sandbox, opened_bcb(tmp_path), ATTACKS[attack])
    assert status in (Status.FAIL, Status.ERROR), detail


def test_tests_that_skip_themselves_or_expect_to_fail_do_not_stand_in_the_way(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    tests = TESTS.replace("    def test_case_2", "    @unittest.skip('slow')\n    def test_case_2")
    tests = tests.replace(
        "    def test_case_3", "    @unittest.expectedFailure\n    def test_case_3"
    ).replace("0.3)", "0.4)")
    assert judged(sandbox, opened_bcb(tmp_path, bcb_row(test=tests)), RIGHT) == (Status.PASS, "")


@pytest.mark.parametrize(
    ("wrong", "detail"),
    [
        ("raise OSError", "setUpClass (__test__.TestCases) error: OSError"),
        ("import os; os._exit(0)", "3 of 3 tests did not run; exit code 0"),
    ],
)
def test_a_class_that_does_not_set_up_has_not_passed(
    sandbox: Sandbox, tmp_path: Path, wrong: str, detail: str
) -> None:
    set_up = f"    @classmethod\n    def setUpClass(cls):\n        {wrong}\n    def setUp"
    benchmark = opened_bcb(tmp_path, bcb_row(test=TESTS.replace("    def setUp", set_up)))
    assert judged(sandbox, benchmark, RIGHT)[1].startswith(detail)


def test_subtests_that_fail_fail_their_test(sandbox: Sandbox, tmp_path: Path) -> None:
    looped = (
        "import unittest\nclass TestCases(unittest.TestCase):\n    def test_all(self):\n"
        "        for n in range(3):\n            with self.subTest(n=n):\n"
        "                self.assertEqual(task_func(f'[{n}, 1]'), n + 1)\n"
    )
    benchmark = opened_bcb(tmp_path, bcb_row(test=looped))
    assert judged(sandbox, benchmark, RIGHT) == (Status.PASS, "")
    wrong = "def task_func(text):\n    return 2"
    assert judged(sandbox, benchmark, wrong)[0] is Status.FAIL


def test_tests_see_an_empty_folder_of_their_own_and_the_published_time_zone(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    tests = (
        "import os, time, unittest\nclass TestCases(unittest.TestCase):\n"
        "    def test_folder(self):\n        self.assertEqual(os.listdir('.'), [])\n"
        "        open('written', 'w').close()\n"
        "    def test_zone(self):\n        self.assertEqual(time.tzname[0], 'UTC')\n"
        "    def test_module(self):\n        import sys\n"
        "        self.assertIs(sys.modules['__test__'].task_func, task_func)\n"
    )
    assert judged(sandbox, opened_bcb(tmp_path, bcb_row(test=tests)), RIGHT) == (Status.PASS, "")


def test_the_gold_program_passes_as_it_is(sandbox: Sandbox, tmp_path: Path) -> None:
    benchmark = opened_bcb(tmp_path)
    judgment = benchmark.judge(sandbox, TASK, benchmark.gold(TASK))
    assert judgment.statuses == {FULL: (Status.PASS, "")}


def test_one_program_gives_a_hard_verdict_where_the_task_is_hard(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    easy = "BigCodeBench/8"
    benchmark = opened_bcb(tmp_path, bcb_row(), bcb_row(easy), hard=(TASK,))
    samples = [
        Sample(task_id=task_id, number=number, text=text, form=Form.PROGRAM)
        for task_id in (TASK, easy)
        for number, text in enumerate((RIGHT, ""))
    ]
    for num_run in (2, 0):  # and once more, from the file of verdicts
        graded = grade(
            benchmark, samples, sandbox, tmp_path / "out", tmp_path / f"cache{num_run}", workers=2
        )
        assert graded.num_run == num_run
        found = [
            (each.task_id, each.sample, each.benchmark, each.status) for each in graded.verdicts
        ]
        assert found == [
            (TASK, 0, FULL, Status.PASS),
            (TASK, 0, HARD, Status.PASS),
            (TASK, 1, FULL, Status.NO_CODE),
            (TASK, 1, HARD, Status.NO_CODE),
            (easy, 0, FULL, Status.PASS),
            (easy, 1, FULL, Status.NO_CODE),
        ]


def test_a_sample_whose_hard_verdict_was_lost_is_graded_again(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    benchmark = opened_bcb(tmp_path, hard=(TASK,))
    samples = [Sample(task_id=TASK, number=0, text=RIGHT, form=Form.PROGRAM)]
    file = tmp_path / "out" / "verdicts.jsonl"
    for name in ("first", "second"):
        graded = grade(benchmark, samples, sandbox, file.parent, tmp_path / name, workers=1)
        assert graded.num_run == 1
        assert [verdict.benchmark for verdict in graded.verdicts] == [FULL, HARD]
        file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])


def test_a_machine_that_fails_says_so_for_the_benchmarks_of_the_task_alone(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    benchmark = opened_bcb(tmp_path, bcb_row(), bcb_row("BigCodeBench/8"), hard=("BigCodeBench/8",))
    verdicts = grade(
        benchmark,
        [Sample(task_id=TASK, number=0, text=RIGHT, form=Form.PROGRAM)],
        _Broken(sandbox.level),
        tmp_path / "out",
        tmp_path / "cache",
        workers=1,
    ).verdicts
    assert [(verdict.benchmark, verdict.status) for verdict in verdicts] == [(FULL, Status.INFRA)]


@pytest.mark.parametrize(
    ("text", "form", "code"),
    [
        (f"Here:\n```python\n{RIGHT}```\n", Form.ANSWER, RIGHT),
        (f"{RIGHT}print(task_func('[1]'))\n", Form.ANSWER, RIGHT),
        (SOLUTION, Form.COMPLETION, COMPLETE_PROMPT + SOLUTION),
    ],
)
def test_what_an_endpoint_sent_is_cut_to_the_program_and_calibrated(
    tmp_path: Path, text: str, form: Form, code: str
) -> None:
    sample = Sample(task_id=TASK, number=0, text=text, form=form, is_raw=True)
    found = opened_bcb(tmp_path).extract(sample).code
    assert found is not None
    assert found.startswith(f"{CODE_PROMPT}\n    pass\n")
    assert found.removeprefix(f"{CODE_PROMPT}\n    pass\n").strip() == code.strip()


def test_an_answer_without_a_program_has_no_code_and_says_why(tmp_path: Path) -> None:
    benchmark = opened_bcb(tmp_path)
    for text, reason in (("I cannot.", "unparsable"), ("<think>hm", "unfinished_thought")):
        sample = Sample(task_id=TASK, number=0, text=text, form=Form.ANSWER, is_raw=True)
        extraction = benchmark.extract(sample)
        assert (extraction.code, extraction.reason) == (None, reason)


def test_a_split_decides_what_a_chat_is_asked(tmp_path: Path) -> None:
    path = write_bcb(tmp_path / "full.parquet")
    instruct = BigCodeBench(path, BcbOptions(split="instruct")).prompt(TASK, Style.CHAT)
    (user,) = instruct.messages
    assert user["content"].endswith("code block:\nSum a list in JSON.\nYou should write "
                                    "self-contained code.\n")  # fmt: skip
    options = BcbOptions(split="complete", has_prefill=True)
    complete = BigCodeBench(path, options).prompt(TASK, Style.CHAT)
    user, begun = complete.messages
    assert user["content"].endswith(f"code block:\n```\n{COMPLETE_PROMPT.strip()}\n```\n")
    assert begun["content"].endswith("corresponding tests:\n```python\n")
    assert (instruct.template, complete.template) == (
        "bigcodebench-instruct/1",
        "bigcodebench-complete-prefilled/1",
    )


@pytest.mark.parametrize("split", ["instruct", "complete"])
def test_a_base_model_goes_on_from_code_whatever_chats_are_asked(
    tmp_path: Path, split: str
) -> None:
    path = write_bcb(tmp_path / "full.parquet")
    prompt = BigCodeBench(path, BcbOptions(split=split)).prompt(TASK, Style.COMPLETION)
    assert prompt.template == "bigcodebench-completion/1"
    assert prompt.text == COMPLETE_PROMPT.strip() + "\n"
    assert "\ndef " in prompt.stop


def test_json_lines_give_the_same_tasks_as_parquet(tmp_path: Path) -> None:
    rows = [bcb_row(), bcb_row("BigCodeBench/8", libs=["numpy", "os.path"])]
    (tmp_path / "lines.jsonl").touch()
    lines = load_tasks(write_lines(tmp_path / "lines.jsonl", rows), None)
    assert [task.libraries for task in lines.values()] == [("json",), ("numpy", "os.path")]
    rows = [bcb_row(), bcb_row("BigCodeBench/8")]
    assert load_tasks(write_bcb(tmp_path / "full.parquet", *rows), None)[TASK] == lines[TASK]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"test": "import unittest"}, "without a test method in a class TestCases"),
        ({"test": "def ("}, "tests that are no Python"),
        ({"code_prompt": None}, "field 'code_prompt'"),
        ({"libs": "__import__('os')"}, "is no list"),
        ({"libs": "['os; import sys']"}, "is no list of modules"),
    ],
)
def test_a_row_that_is_not_of_the_format_is_refused_with_its_place(
    tmp_path: Path, fields: dict[str, str], said: str
) -> None:
    path = write_lines(tmp_path / "full.jsonl", [{**bcb_row(), **fields}])
    with pytest.raises(ValueError, match=rf"full\.jsonl:1: .*{said}"):
        load_tasks(path, None)


def test_a_hard_file_of_another_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"hard\.parquet: task 'BigCodeBench/9' is none of the 1"):
        opened_bcb(tmp_path, hard=("BigCodeBench/9",))


@pytest.mark.parametrize(
    "options", [{}, {"split": "hard"}, {"split": "instruct", "subset": "x"}, {"prefill": "yes"}]
)
def test_options_that_mean_nothing_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="bcb: "):
        bcb_options(options, "bcb")


def test_facts_name_what_programs_are_run_with(tmp_path: Path) -> None:
    facts = opened_bcb(tmp_path, bcb_row(), bcb_row("BigCodeBench/8"), hard=(TASK,)).facts(())
    assert json.dumps(facts)
    assert facts["num_hard_tasks"] == 1
    assert facts["python"].startswith("3.")


def test_libraries_that_do_not_import_are_listed_with_their_tasks(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = [bcb_row(), bcb_row("BigCodeBench/8", libs="['json', 'no_such_library']")]
    missing = opened_bcb(tmp_path, *rows).missing_libraries(sandbox)
    assert list(missing) == ["no_such_library"]
    said, tasks = missing["no_such_library"]
    assert "No module named 'no_such_library'" in said
    assert tasks == ("BigCodeBench/8",)
    assert json.dumps(missing)
