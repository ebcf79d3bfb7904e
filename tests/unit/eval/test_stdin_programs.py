from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sandboxed_jobs import limited

from mira_megatron.eval.sandbox.contract import Limits, Sandbox
from mira_megatron.eval.stdin_programs import Run, RunStatus, is_same_printed, run_on_inputs

ENOUGH = limited(memory_bytes=1 << 30, output_bytes=1 << 20, file_bytes=1 << 27)


def ran(
    sandbox: Sandbox, program: str, *inputs: str, cpu_seconds: int = 2, limits: Limits = ENOUGH
) -> tuple[Run, ...]:
    return run_on_inputs(
        sandbox,
        program,
        inputs,
        cpu_seconds=cpu_seconds,
        wait_seconds=100,
        limits=limits,
        modules=("math",),
    ).runs


@pytest.mark.parametrize(
    "program",
    [
        "print(int(input()) * 2)",
        "import sys\nfor line in sys.stdin:\n    print(int(line) * 2)",
        "import sys\nprint(int(sys.stdin.buffer.read()) * 2)",
        "print(int(open(0).read()) * 2)",
        "import os\nos.write(1, b'%d' % (int(os.read(0, 99)) * 2))",
        "def main():\n    print(int(input()) * 2)\nif __name__ == '__main__':\n    main()",
        "import threading\nthreading.Thread(target=lambda: print(int(input()) * 2)).start()",
        "import sys\nprint(int(input()) * 2)\nsys.exit()",
        "import os\nprint(int(input()) * 2, flush=True)\nos._exit(0)",
        "import subprocess, sys\nsubprocess.run(['/bin/sh', '-c', 'read n; echo $((n * 2))'])",
    ],
)
def test_a_program_reads_and_prints_in_any_way_that_a_process_can(
    sandbox: Sandbox, program: str
) -> None:
    runs = ran(sandbox, program, "3\n", "21\n")
    assert [run.status for run in runs] == [RunStatus.ENDED] * 2, runs
    assert [run.stdout.strip() for run in runs] == ["6", "42"]


def test_a_run_knows_nothing_of_the_runs_before_it(sandbox: Sandbox) -> None:
    program = (
        "import math\nprint(getattr(math, 'seen', 'no'), input())\nmath.seen = 'yes'\n"
        "import builtins\nbuiltins.input = None\nprint = None"
    )
    assert [run.stdout for run in ran(sandbox, program, "a", "b")] == ["no a\n", "no b\n"]


@pytest.mark.parametrize(
    ("program", "status", "detail"),
    [
        ("print(1)\nraise ValueError('no')", RunStatus.FAILED, "exit code 1: ValueError: no"),
        ("print(", RunStatus.FAILED, "exit code 1: SyntaxError: '(' was never closed"),
        ("input()\ninput()", RunStatus.FAILED, "exit code 1: EOFError: EOF when reading a line"),
        ("import sys\nsys.exit(3)", RunStatus.FAILED, "exit code 3: "),
        ("import os\nos.abort()", RunStatus.DIED, "signal 6: "),
        ("import os\nos.kill(os.getppid(), 9)", RunStatus.DIED, "nothing more was heard: ''"),
        ("a = bytearray(2 << 30)", RunStatus.FAILED, "exit code 1: MemoryError"),
        ("while True: print('x' * 1000000)", RunStatus.FAILED, "File too large"),
        ("while True: pass", RunStatus.TIMED_OUT, ""),
        (
            "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
            RunStatus.TIMED_OUT,
            "",
        ),
    ],
)
def test_a_run_that_does_not_end_well_is_the_last(
    sandbox: Sandbox, program: str, status: RunStatus, detail: str
) -> None:
    runs = ran(sandbox, f"if input() != 'go':\n  exec({program!r})", "go", "1", "go", cpu_seconds=1)
    assert [run.status for run in runs] == [RunStatus.ENDED, status]
    assert detail in runs[-1].detail
    if status is RunStatus.TIMED_OUT:  # by CPU time: one is allowed, two where it holds on to life
        assert 0.5 < runs[-1].seconds < 4


def test_a_run_that_only_waits_is_ended_too(sandbox: Sandbox) -> None:
    program = "import time\ntime.sleep(999)"
    ended = run_on_inputs(sandbox, program, [""], cpu_seconds=5, wait_seconds=0.5, limits=ENOUGH)
    assert [run.status for run in ended.runs] == [RunStatus.TIMED_OUT]


def test_more_output_than_is_kept_is_no_answer(sandbox: Sandbox) -> None:
    (run,) = ran(sandbox, "print('x' * 20_000)", "", limits=replace(ENOUGH, output_bytes=1000))
    assert run == Run(status=RunStatus.DIED, detail="it printed too much")


def test_a_program_cannot_answer_for_another_run(sandbox: Sandbox) -> None:
    program = (
        "import json, os\n"
        "line = json.dumps({'status': 0, 'is_late': False, 'seconds': 0, "
        "'stdout': 'forged', 'said': ''}) + '\\n'\n"
        "for descriptor in range(3, 200):\n"
        "    try:\n        os.write(descriptor, line.encode())\n"
        "    except OSError:\n        pass\n"
        "print('own')"
    )
    assert [run.stdout for run in ran(sandbox, program, "", "")] == ["own\n", "own\n"]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("1 2\n3\n", "1 2\n3"),
        ("  yes \n\n", "yes"),
        ("1.50 2", "1.5 2.0"),
        ("1e3", "1000"),
        ("a\r\nb", "a\nb"),
        ("", "\n"),
    ],
)
def test_outputs_that_differ_in_blanks_at_the_ends_or_in_how_numbers_are_written_are_the_same(
    printed: str, expected: str
) -> None:
    assert is_same_printed(printed, expected)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("0.30000000000000004", "0.3"),
        ("50000000000000001", "50000000000000000"),
        ("1 2", "1\n2"),
        ("1", "1 1"),
        ("a  b", "a b"),
        ("Yes", "yes"),
        ("nan 1", "nan 1.0"),
        ("sNaN", "1"),
        ("1\n\n2", "1\n2"),
        ("", "0"),
    ],
)
def test_outputs_that_differ_in_anything_else_are_not_the_same(printed: str, expected: str) -> None:
    assert not is_same_printed(printed, expected)


@settings(max_examples=40)
@given(st.lists(st.lists(st.decimals(allow_nan=False), min_size=1), min_size=1))
def test_numbers_are_the_same_however_they_are_written(lines: list[list[Decimal]]) -> None:
    plain = "\n".join(" ".join(map(str, line)) for line in lines)
    spread = "\n".join("  ".join(f"{each:E}" for each in line) for line in lines)
    assert is_same_printed(plain, spread)
