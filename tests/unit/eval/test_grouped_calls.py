from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mira_megatron.eval.grouped_calls import Call, CallStatus, Unserialisable, call_groups
from mira_megatron.eval.sandbox.contract import Job, Limits, Outcome, Sandbox

LIMITS = Limits(
    wall_seconds=20,
    cpu_seconds=10,
    memory_bytes=1 << 30,
    output_bytes=1 << 20,
    num_processes=16,
    file_bytes=1 << 20,
    num_open_files=32,
)


def called(
    sandbox: Sandbox, program: str, *groups: list[list[Any]], seconds: float = 5.0
) -> tuple[tuple[Call, ...], ...]:
    times = [[seconds] * len(group) for group in groups]
    return call_groups(sandbox, program, "f", groups, times, LIMITS).groups


def statuses(calls: tuple[Call, ...]) -> list[CallStatus]:
    return [call.status for call in calls]


def test_values_keep_their_types(sandbox: Sandbox) -> None:
    value = (1, [2.5, {"a": {3}}], None, b"x", 1 << 200, 1j)
    (calls,) = called(sandbox, "def f(x):\n    return x\n", [[value]])
    assert calls[0].status is CallStatus.VALUE
    assert calls[0].value == value
    assert type(calls[0].value[1][1]["a"]) is set


def test_each_group_loads_the_program_afresh(sandbox: Sandbox) -> None:
    program = "seen = []\ndef f(x):\n    seen.append(x)\n    return list(seen)\n"
    first, second = called(sandbox, program, [[1], [2]], [[3]])
    assert [call.value for call in first] == [[1], [1, 2]]
    assert [call.value for call in second] == [[3]]


def test_sets_of_strings_have_the_same_order_in_every_run(sandbox: Sandbox) -> None:
    program = "def f():\n    return list({'a', 'b', 'c', 'd', 'e', 'f', 'g'})\n"
    runs = {str(called(sandbox, program, [[]])[0][0].value) for _ in range(3)}
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("def f(x):\n    return 1 / x\n", CallStatus.RAISED),
        ("def f(x):\n    raise SystemExit(0)\n", CallStatus.RAISED),
        ("def g(x):\n    return x\n", CallStatus.RAISED),
        ("import sys\nsys.exit(0)\n", CallStatus.RAISED),
        ("raise KeyboardInterrupt\n", CallStatus.RAISED),
        ("f = 3\n", CallStatus.RAISED),
        ("def f(: pass\n", CallStatus.RAISED),
        ("import atexit, os, sys\natexit.register(lambda: os._exit(0))\n"
         "def f(x):\n    sys.exit(0)\n", CallStatus.RAISED),
        ("import os\nos._exit(0)\n", CallStatus.DIED),
        ("import os\ndef f(x):\n    os._exit(0)\n", CallStatus.DIED),
        ("def f(x):\n    return 'x' * (1 << 22)\n", CallStatus.DIED),
        ("def f(x):\n    while True: pass\n", CallStatus.TIMED_OUT),
        ("def f(x):\n    while True:\n        try:\n            while True: pass\n"
         "        except BaseException: pass\n", CallStatus.TIMED_OUT),
    ],
)  # fmt: skip
def test_a_call_without_a_value_ends_the_calls(
    sandbox: Sandbox, program: str, status: CallStatus
) -> None:
    first, second = called(sandbox, program, [[0], [1]], [[2]], seconds=0.3)
    assert statuses(first) == [status]
    assert second[0].status is not CallStatus.VALUE


@pytest.mark.parametrize("killed", ["os.getppid()", "-1"])
def test_a_program_that_kills_what_calls_it_gets_no_further(sandbox: Sandbox, killed: str) -> None:
    program = f"import os\ndef f(x):\n    os.kill({killed}, 9)\n"
    _, second = called(sandbox, program, [[0]], [[2]])
    assert statuses(second) == [CallStatus.DIED]


def test_a_program_that_catches_everything_and_waits_is_ended(sandbox: Sandbox) -> None:
    program = "import time\ndef f(x):\n    time.sleep(1000)\n"
    (calls,) = called(sandbox, program, [[0]], seconds=0.05)
    assert statuses(calls) == [CallStatus.TIMED_OUT]


def test_an_object_that_equals_everything_is_no_value(sandbox: Sandbox) -> None:
    program = (
        "class Yes(int):\n    def __eq__(self, other): return True\n"
        "class All:\n    def __eq__(self, other): return True\n"
        "def f(x):\n    return Yes(7) if x else All()\n"
    )
    (calls,) = called(sandbox, program, [[1], [0]])
    assert type(calls[0].value) is int
    assert calls[0].value == 7
    assert isinstance(calls[1].value, Unserialisable)
    assert calls[1].value != 7


def test_no_right_answers_are_in_reach_of_the_program(sandbox: Sandbox) -> None:
    program = (
        "import sys, os\n"
        "def f(x):\n"
        "    frame, found = sys._getframe(), []\n"
        "    while frame:\n"
        "        found += sorted(map(str, frame.f_locals))\n"
        "        frame = frame.f_back\n"
        "    return [found, sorted(os.listdir('/work'))]\n"
    )
    (calls,) = called(sandbox, program, [[0]])
    names, files = calls[0].value
    assert not any("expect" in name or "gold" in name for name in names)
    assert files == ["call_groups.py", "values.py"]


def test_answers_that_the_program_writes_itself_do_not_move_others(sandbox: Sandbox) -> None:
    program = (
        "import os\n"
        "def f(x):\n"
        "    fd = int(os.environ['MIRA_RESULTS_FD'])\n"
        '    line = b\'{"group": 0, "call": 7, "seconds": 0, "value": "1"}\'\n'
        "    os.write(fd, line + b'\\n[[[\\nnull\\n')\n"
        "    return x\n"
    )
    (calls,) = called(sandbox, program, [[1], [2]])
    assert statuses(calls) == [CallStatus.DIED]


def test_answers_arrive_whatever_descriptors_are_open_here(sandbox: Sandbox) -> None:
    with ExitStack() as stack:
        for _ in range(12):
            (calls,) = called(sandbox, "def f(x):\n    return x\n", [[1]])
            assert statuses(calls) == [CallStatus.VALUE]
            stack.enter_context(Path("/dev/null").open())


def test_what_a_program_prints_is_not_taken_for_an_answer(sandbox: Sandbox) -> None:
    program = "def f(x):\n    print('{\"group\": 0}')\n    return input\n"
    (calls,) = called(sandbox, program, [[1]])
    assert repr(calls[0].value) == "<builtins.builtin_function_or_method>"


def test_what_was_raised_is_told(sandbox: Sandbox) -> None:
    (calls,) = called(sandbox, "def f(x):\n    return 6 // (x - 1)\n", [[3], [1]])
    assert [(call.value, call.detail) for call in calls] == [(3, ""), (None, "ZeroDivisionError")]


def test_patched_builtins_and_json_spoil_only_their_own_answers(sandbox: Sandbox) -> None:
    program = (
        "import builtins, io, json, sys\n"
        "json.dumps = lambda *a, **k: 'true'\n"
        "builtins.len = lambda x: 0\n"
        "builtins.isinstance = lambda *a: True\n"
        "sys.stdout = io.StringIO()\n"
        "def f(x):\n    return x\n"
    )
    (calls,) = called(sandbox, program, [[1], [2]])
    assert statuses(calls) == [CallStatus.DIED]


def test_the_request_is_not_on_the_programs_stdin(sandbox: Sandbox) -> None:
    program = (
        "import os\ndef f(x):\n    return [os.readlink(f'/proc/self/fd/{n}') for n in range(3)]\n"
    )
    (calls,) = called(sandbox, program, [[1]])
    assert calls[0].value == ["/dev/null"] * 3


def test_lines_forged_in_every_descriptor_are_no_more_than_wrong_answers(sandbox: Sandbox) -> None:
    # It answers for the next group too, in every descriptor of every process it can open.
    program = (
        "import glob, json, os\n"
        "lines = [{'group': g, 'call': 0, 'seconds': 0, 'value': '99'} for g in range(2)]\n"
        "forged = b''.join(json.dumps(line).encode() + b'\\n' for line in lines)\n"
        "def f(x):\n"
        "    for path in glob.glob('/proc/[0-9]*/fd/*'):\n"
        "        try:\n"
        "            os.write(os.open(path, os.O_WRONLY | os.O_NONBLOCK), forged)\n"
        "        except OSError:\n"
        "            pass\n"
        "    os._exit(1)\n"
    )
    groups = called(sandbox, program, [[1], [2]], [[3]])
    assert {call.value for calls in groups for call in calls} <= {99, None}
    assert groups[0][-1].status is CallStatus.DIED


def test_memory_of_the_program_is_bounded(sandbox: Sandbox) -> None:
    (calls,) = called(sandbox, "def f(x):\n    return len(bytes(x))\n", [[5], [2 << 30]])
    assert [(call.value, call.detail) for call in calls] == [(5, ""), (None, "MemoryError")]


class OutOfTime:
    """Gives the outcome of a job that the clock ended behind its first answer."""

    level = 3

    def run(self, job: Job) -> Outcome:
        line = b'{"group": 0, "call": 0, "seconds": 0.1, "value": "7"}\n'
        return Outcome(
            exit_code=None,
            signal=9,
            is_timed_out=True,
            is_out_of_memory=False,
            cpu_seconds=0,
            wall_seconds=30,
            peak_bytes=None,
            stdout=b"",
            stderr=b"",
            num_output_bytes=0,
            results=line,
            num_result_bytes=len(line),
            isolation=3,
        )


def test_a_program_that_the_clock_ends_keeps_what_it_had_answered() -> None:
    (calls,) = called(OutOfTime(), "", [[0], [1], [2]])
    assert statuses(calls) == [CallStatus.VALUE, CallStatus.TIMED_OUT]
    assert calls[0].value == 7
