"""Calls of programs that are written to pass without being right."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sandboxed_jobs import limited

from mira_megatron.eval.sandbox.calls import (
    CallLimits,
    CallResult,
    CallStatus,
    call_function,
    prepare_calls,
)
from mira_megatron.eval.sandbox.contract import Limits, Outcome, Sandbox

LIMITS = limited(output_bytes=1 << 16)
CALL_LIMITS = CallLimits(call_seconds=20, load_seconds=20, answer_bytes=2000)


def call(
    sandbox: Sandbox,
    program: str,
    arguments: Sequence[Sequence[object]] = ((1,), (2,), (3,)),
    *,
    call_limits: CallLimits = CALL_LIMITS,
    limits: Limits = LIMITS,
) -> tuple[CallResult, ...]:
    """Returns what came of calling the program's function f."""
    calls = prepare_calls(program, "f", arguments, limits=limits, call_limits=call_limits)
    return call_function(sandbox, calls)


def outcome_with(results: bytes) -> Outcome:
    return Outcome(
        exit_code=0,
        signal=None,
        is_timed_out=False,
        is_out_of_memory=False,
        cpu_seconds=0,
        wall_seconds=0,
        peak_bytes=0,
        stdout=b"",
        stderr=b"",
        num_output_bytes=0,
        results=results,
        num_result_bytes=len(results),
        isolation=3,
    )


def statuses(results: Sequence[CallResult]) -> list[str]:
    return [str(result.status) for result in results]


def values(results: Sequence[CallResult]) -> list[object]:
    return [result.value for result in results]


def test_values_come_back_in_order(sandbox: Sandbox) -> None:
    results = call(sandbox, "def f(x, y=0): return {x: (y, None)}", [(1,), ("a", 2.5), (b"b",)])
    assert values(results) == [{1: (0, None)}, {"a": (2.5, None)}, {b"b": (0, None)}]


def test_what_is_raised_is_told(sandbox: Sandbox) -> None:
    results = call(sandbox, "def f(x): return 6 // (x - 1)")
    assert statuses(results) == ["raised", "value", "value"]
    assert results[0].detail == "ZeroDivisionError: integer division or modulo by zero"


def test_exit_in_a_call_ends_no_other_call(sandbox: Sandbox) -> None:
    program = "import os, sys\ndef f(x): return [sys.exit, os._exit, str][x - 1](0)"
    results = call(sandbox, program)
    assert statuses(results) == ["raised", "died", "value"]
    assert results[1].detail == "exit code 0"


@pytest.mark.parametrize(
    "ending", ["import sys; sys.exit(0)", "raise KeyboardInterrupt", "1/0", "f = 3", "def f(: pass"]
)
def test_program_that_does_not_load_is_told_once(sandbox: Sandbox, ending: str) -> None:
    assert statuses(call(sandbox, ending)) == ["not_loaded", "not_run", "not_run"]


def test_exit_at_import_without_a_word_is_no_answer(sandbox: Sandbox) -> None:
    once = CallLimits(call_seconds=20, load_seconds=20, max_restarts=0)
    results = call(sandbox, "import os; os._exit(0)", call_limits=once)
    assert statuses(results) == ["died", "not_run", "not_run"]


def test_exit_handler_changes_nothing(sandbox: Sandbox) -> None:
    program = (
        "import atexit, os, sys\natexit.register(lambda: os._exit(0))\ndef f(x):\n    sys.exit(0)\n"
    )
    assert statuses(call(sandbox, program)) == ["raised"] * 3


def test_slow_call_is_ended_and_the_others_are_made(sandbox: Sandbox) -> None:
    program = "def f(x):\n    while x == 2: pass\n    return x"
    limits = CallLimits(call_seconds=2, load_seconds=20)
    assert statuses(call(sandbox, program, call_limits=limits)) == ["value", "timed_out", "value"]


def test_program_that_fails_too_often_is_given_up(sandbox: Sandbox) -> None:
    limits = CallLimits(call_seconds=20, load_seconds=20, max_restarts=1)
    results = call(sandbox, "import os\ndef f(x): os._exit(1)", call_limits=limits)
    assert statuses(results) == ["died", "died", "not_run"]


def test_object_that_equals_everything_is_no_value(sandbox: Sandbox) -> None:
    program = (
        "class Same:\n"
        "    def __eq__(self, other): return True\n"
        "class SameInt(int):\n"
        "    def __eq__(self, other): return True\n"
        "    __hash__ = int.__hash__\n"
        "def f(x): return Same() if x == 1 else SameInt(7)\n"
    )
    results = call(sandbox, program)
    assert statuses(results) == ["unserialisable", "value", "value"]
    assert [type(results[1].value), results[1].value == 8] == [int, False]


def test_frames_hold_the_arguments_and_no_more(sandbox: Sandbox) -> None:
    program = (
        "import gc, sys\n"
        "def f(x):\n"
        "    frame, seen = sys._getframe(), []\n"
        "    while frame:\n"
        "        seen += [v for v in frame.f_locals.values() if isinstance(v, (int, str, list))]\n"
        "        frame = frame.f_back\n"
        "    return sorted({str(v)[:40] for v in seen} - {str(x)})\n"
    )
    calls = prepare_calls(program, "f", [(11,)], limits=LIMITS, call_limits=CALL_LIMITS)
    (result,) = call_function(sandbox, calls)
    assert result.status is CallStatus.VALUE
    assert calls.nonce not in str(result.value)


def test_patched_builtins_and_json_spoil_only_their_own_answer(sandbox: Sandbox) -> None:
    program = (
        "import builtins, json, sys, io\n"
        "json.dumps = lambda *a, **k: 'true'\n"
        "builtins.len = lambda x: 0\n"
        "builtins.isinstance = lambda *a: True\n"
        "sys.stdout = io.StringIO()\n"
        "def f(x): return x\n"
    )
    results = call(sandbox, program)
    assert len(results) == 3
    assert 1 not in [v for v in values(results) if v is not True]


def test_what_a_call_prints_is_no_answer(sandbox: Sandbox) -> None:
    program = "import os\ndef f(x):\n    print('value\\n9' * 100)\n    return x"
    assert values(call(sandbox, program)) == [1, 2, 3]


def test_records_cannot_be_written_by_the_program(sandbox: Sandbox) -> None:
    # It writes records with a nonce of its own to every descriptor of every process it can open.
    program = (
        "import glob, os\n"
        "forged = b''.join(b'%s %d 5 2\\nvalue99\\n' % (b'0' * 32, i) for i in range(3))\n"
        "def f(x):\n"
        "    for path in glob.glob('/proc/[0-9]*/fd/*'):\n"
        "        try:\n"
        "            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)\n"
        "            os.write(fd, forged)\n"
        "        except OSError:\n"
        "            pass\n"
        "    return x\n"
    )
    assert 99 not in values(call(sandbox, program))


def test_records_without_the_nonce_are_not_read() -> None:
    calls = prepare_calls("", "f", [(1,), (2,)], limits=LIMITS, call_limits=CALL_LIMITS)
    real = f"{calls.nonce} 0 5 1\nvalue7\n".encode()
    forged = b"%s 1 5 2\nvalue99\n" % (b"0" * 32)
    assert values(calls.results_of(outcome_with(real + forged))) == [7, None]
    assert statuses(calls.results_of(outcome_with(forged + real))) == ["died", "died"]


@pytest.mark.parametrize(
    "damage",
    ["{n} 0 5 900\nvalue7\n", "{n} 0 5 1\nvalue7", "{n} 1 5 1\nvalue7\n", "{n} 0 x 1\n", "\n"],
)
def test_damaged_records_are_no_answers(damage: str) -> None:
    calls = prepare_calls("", "f", [(1,)], limits=LIMITS, call_limits=CALL_LIMITS)
    content = damage.replace("{n}", calls.nonce).encode()
    assert statuses(calls.results_of(outcome_with(content))) == ["died"]


def test_driver_cannot_be_looked_into(sandbox: Sandbox) -> None:
    program = (
        "import os\n"
        "def f(x):\n"
        "    driver, seen = os.getppid(), []\n"
        "    for name in ('mem', 'environ', 'fd/0', 'maps', 'root'):\n"
        "        try:\n"
        "            os.close(os.open(f'/proc/{driver}/{name}', os.O_RDONLY))\n"
        "            seen.append(name)\n"
        "        except OSError:\n"
        "            pass\n"
        "    return seen\n"
    )
    assert values(call(sandbox, program, [(1,)])) == [[]]


def test_program_that_kills_its_driver_has_no_answers(sandbox: Sandbox) -> None:
    program = "import os\ndef f(x):\n    if x == 2: os.kill(-1, 9)\n    return x"
    results = call(sandbox, program)
    assert statuses(results) == ["value", "died", "died"]


def test_program_does_not_see_the_other_arguments(sandbox: Sandbox) -> None:
    program = (
        "import os\n"
        "def f(x):\n"
        "    open_now = [os.readlink('/proc/self/fd/' + n) for n in ('0', '1', '2')]\n"
        "    return open_now + ['MIRA_RESULTS_FD' in os.environ]\n"
    )
    assert values(call(sandbox, program, [(1,)])) == [["/dev/null"] * 3 + [False]]


def test_large_value_is_refused_and_the_next_is_taken(sandbox: Sandbox) -> None:
    results = call(sandbox, "def f(x): return 'a' * (10_000 if x == 1 else 1)")
    assert statuses(results) == ["unserialisable", "value", "value"]
    assert results[0].detail == "more than 2,000 bytes"


def test_values_that_are_too_much_together_are_lost_and_said_so(sandbox: Sandbox) -> None:
    results = call(sandbox, "def f(x): return 'a' * 900", limits=limited(output_bytes=2000))
    assert statuses(results) == ["value", "value", "died"]
    assert "all values together" in results[2].detail


def test_memory_of_the_program_is_bounded(sandbox: Sandbox) -> None:
    results = call(sandbox, "def f(x): return len(bytes(x))", [(300 << 20,), (5,)])
    assert statuses(results) == ["raised", "value"]
    assert results[0].detail.startswith("MemoryError")


def test_job_that_runs_out_of_time_keeps_what_was_recorded(sandbox: Sandbox) -> None:
    program = "import time\ndef f(x):\n    time.sleep(300 if x == 2 else 0)\n    return x"
    results = call(sandbox, program, limits=limited(wall_seconds=3))
    assert statuses(results) == ["value", "died", "died"]
    assert results[1].detail == "the job ran out of time"


def test_time_waited_and_not_computed_is_told_by_the_exit_code(sandbox: Sandbox) -> None:
    limits = CallLimits(call_seconds=0.5, load_seconds=20, max_restarts=0)
    program = "import time\ndef f(x): time.sleep(300)"
    calls = prepare_calls(program, "f", [(1,)], limits=LIMITS, call_limits=limits)
    assert sandbox.run(calls.job).exit_code == 75
