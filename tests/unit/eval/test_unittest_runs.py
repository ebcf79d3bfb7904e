from __future__ import annotations

from dataclasses import replace

import pytest
from sandboxed_jobs import limited

from mira_megatron.eval.sandbox.contract import Job, Limits, Outcome, Sandbox
from mira_megatron.eval.sandbox.interpreter import system_interpreter
from mira_megatron.eval.unittest_runs import expected_tests, run_with_tests
from mira_megatron.eval.verdicts import Status

ENOUGH = limited(memory_bytes=1 << 30, num_open_files=64)
TESTS = (
    "import unittest\nclass TestCases(unittest.TestCase):\n"
    "    def test_one(self):\n        self.assertEqual(task_func(), 1)\n"
)


def ran(
    sandbox: Sandbox, program: str, limits: Limits = ENOUGH, tests: str = TESTS
) -> tuple[Status, str]:
    result = run_with_tests(sandbox, system_interpreter(), program, tests, limits)
    return result.status, result.detail


@pytest.mark.parametrize(
    ("program", "limits", "verdict"),
    [
        ("def task_func():\n    while True: pass", limited(cpu_seconds=1), (Status.TIMEOUT, "")),
        (
            "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
            limited(cpu_seconds=1),
            (Status.TIMEOUT, ""),
        ),
        ("import time\ntime.sleep(999)", limited(wall_seconds=2), (Status.TIMEOUT, "")),
        (
            "def task_func():\n    return bytearray(1 << 34)",
            ENOUGH,
            (Status.ERROR, "test_one error: MemoryError: "),
        ),
    ],
)
def test_a_program_that_takes_more_than_it_may_is_ended(
    sandbox: Sandbox, program: str, limits: Limits, verdict: tuple[Status, str]
) -> None:
    assert ran(sandbox, program, limits) == verdict


@pytest.mark.parametrize(
    "program",
    [
        "import subprocess\nsubprocess.Popen(['/bin/sleep', '999'], close_fds=False)",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(999,)).start()",
        "import os\nos.closerange(0, 3)",
        "import sys\nsys.stdout.write('x' * 1000000)\nsys.stdin.read()",
    ],
)
def test_what_a_program_leaves_behind_does_not_hold_up_its_verdict(
    sandbox: Sandbox, program: str
) -> None:
    assert ran(sandbox, f"{program}\ndef task_func():\n    return 1", limited(wall_seconds=20)) == (
        Status.PASS,
        "",
    )


@pytest.mark.parametrize(
    "flood",
    [
        "os.write(number, b'x' * 65536 * 40)",
        "os.write(number, b'[' * 60000 + b'\\n')",
        "os.close(number)",
    ],
)
def test_a_program_that_spoils_its_report_has_not_passed(sandbox: Sandbox, flood: str) -> None:
    program = (
        f"import os\nfor number in range(3, 40):\n    try:\n        {flood}\n"
        "    except OSError:\n        pass\ndef task_func():\n    return 1"
    )
    assert ran(sandbox, program)[0] is Status.FAIL


def test_a_test_that_was_taken_away_is_missed(sandbox: Sandbox) -> None:
    tests = f"{TESTS}    def test_two(self):\n        self.assertEqual(task_func(), 2)\n"
    program = (
        "import unittest\nclass Meta(type):\n    pass\n"
        "def names(self, kind):\n    return ['test_one']\n"
        "class Loader(unittest.TestLoader):\n    getTestCaseNames = names\n"
        "unittest.TestLoader = Loader\ndef task_func():\n    return 1"
    )
    assert ran(sandbox, program, tests=tests) == (
        Status.FAIL,
        "1 of 2 tests did not run; exit code 0",
    )


@pytest.mark.parametrize("place", ["mem", "fd", "environ", "cwd"])
def test_a_program_cannot_look_into_its_driver(sandbox: Sandbox, place: str) -> None:
    program = (
        "import os\ndef task_func():\n"
        f"    path = f'/proc/{{os.getppid()}}/{place}'\n"
        "    try:\n        os.listdir(path) if os.path.isdir(path) else open(path, 'rb').close()\n"
        "        os.readlink(path)\n"
        "    except PermissionError:\n        return 1\n"
    )
    assert ran(sandbox, program) == (Status.PASS, "")


class _Replaying:
    """A sandbox whose driver sends what another run's sent."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.level = sandbox.level
        self._results: bytes | None = None

    def run(self, job: Job) -> Outcome:
        outcome = self._sandbox.run(job)
        self._results = self._results or outcome.results
        return replace(outcome, results=self._results)


def test_the_record_of_another_run_is_not_believed(sandbox: Sandbox) -> None:
    replaying = _Replaying(sandbox)
    program = "def task_func():\n    return 1"
    assert ran(replaying, program) == (Status.PASS, "")
    assert ran(replaying, program)[1].startswith("nothing was heard of its end")


def test_a_program_that_ends_the_process_behind_its_last_test_has_not_passed(
    sandbox: Sandbox,
) -> None:
    tests = f"{TESTS}    @classmethod\n    def tearDownClass(cls):\n        task_func()\n"
    program = (
        "import os\ncalls = []\ndef task_func():\n    calls.append(1)\n"
        "    if len(calls) == 2: os._exit(0)\n    return 1"
    )
    assert ran(sandbox, program, tests=tests) == (
        Status.FAIL,
        "ended before the end of its tests",
    )


def test_the_expected_tests_are_those_of_the_class_and_of_what_it_is_made_from() -> None:
    source = (
        "import unittest\n"
        "class Base(unittest.TestCase):\n    def test_base(self): pass\n"
        "class Other(unittest.TestCase):\n    def test_other(self): pass\n"
        "class TestCases(Base, Missing):\n    def setUp(self): pass\n"
        "    def test_a(self): pass\n    def test_a(self): pass\n"
        "    async def test_b(self): pass\n    @patch('x')\n    def test_c(self, x): pass\n"
    )
    assert expected_tests(source) == ("test_a", "test_b", "test_c", "test_base")


@pytest.mark.parametrize("source", ["", "class TestCases: pass", "def (", "def test_x(): pass"])
def test_a_source_without_tests_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="tests"):
        expected_tests(source)
