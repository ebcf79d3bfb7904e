from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sandboxed_jobs import LIMITS, limited, python_job

from mira_megatron.eval.sandbox.contract import Sandbox


def test_sleeping_program_is_ended_by_the_clock(sandbox: Sandbox) -> None:
    outcome = sandbox.run(
        python_job("import time; time.sleep(300)", limits=limited(wall_seconds=1))
    )
    assert outcome.is_timed_out
    assert (outcome.exit_code, outcome.signal) == (None, 9)


def test_computing_program_is_ended_by_its_cpu_time(sandbox: Sandbox) -> None:
    outcome = sandbox.run(
        python_job("while True: pass", limits=limited(cpu_seconds=1, wall_seconds=60))
    )
    assert not outcome.is_timed_out
    assert outcome.signal == 24  # SIGXCPU


def test_program_that_ignores_the_warning_is_killed_a_second_later(sandbox: Sandbox) -> None:
    program = "import signal\nsignal.signal(24, signal.SIG_IGN)\nwhile True: pass"
    outcome = sandbox.run(python_job(program, limits=limited(cpu_seconds=1, wall_seconds=60)))
    assert not outcome.is_timed_out
    assert outcome.signal == 9


def test_memory_of_one_process_is_bounded(sandbox: Sandbox) -> None:
    outcome = sandbox.run(python_job(f"held = bytes([1]) * {LIMITS.memory_bytes}"))
    assert b"MemoryError" in outcome.stderr


def test_memory_of_all_processes_together_is_bounded(sandbox: Sandbox) -> None:
    program = (
        "import os, time\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        "        break\n"
        "held = bytes([1]) * (60 << 20)\n"
        "time.sleep(300)\n"
    )
    outcome = sandbox.run(python_job(program))
    assert outcome.is_out_of_memory
    assert not outcome.is_timed_out
    assert outcome.signal == 9


def test_memory_that_processes_share_counts_once(sandbox: Sandbox) -> None:
    program = (
        "import os, time\n"
        "held = bytes([1]) * (100 << 20)\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(1)\n"
        "        os._exit(0)\n"
        "for _ in range(8): os.wait()\n"
    )
    assert sandbox.run(python_job(program)).exit_code == 0


def test_fork_bomb_stays_within_the_number_of_processes(sandbox: Sandbox) -> None:
    program = (
        "import os, time\n"
        "n = 0\n"
        "try:\n"
        "    while n < 500:\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(300)\n"
        "        n += 1\n"
        "except OSError:\n"
        "    print(n)\n"
    )
    outcome = sandbox.run(python_job(program))
    assert int(outcome.stdout) < LIMITS.num_processes
    assert outcome.exit_code == 0


def test_two_jobs_have_a_number_of_processes_each(sandbox: Sandbox) -> None:
    # The first leaves room for one alone; were it counted with the second, that could not fork.
    program = (
        "import os, time\n"
        "for _ in range(10):\n"
        "    if os.fork() == 0:\n"
        "        time.sleep(1)\n"
        "        os._exit(0)\n"
        "for _ in range(10): os.wait()\n"
    )
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(sandbox.run, [python_job(program)] * 2))
    assert [outcome.exit_code for outcome in outcomes] == [0, 0]


def test_output_flood_is_counted_and_not_kept(sandbox: Sandbox) -> None:
    program = (
        "import os, sys\n"
        "for stream in (1, 2, int(os.environ['MIRA_RESULTS_FD'])):\n"
        "    for _ in range(100): os.write(stream, b'x' * 50_000)\n"
    )
    outcome = sandbox.run(python_job(program))
    assert outcome.exit_code == 0
    kept = [len(stream) for stream in (outcome.stdout, outcome.stderr, outcome.results)]
    assert kept == [LIMITS.output_bytes] * 3
    assert outcome.num_output_bytes == 10_000_000
    assert outcome.num_result_bytes == 5_000_000


@pytest.mark.parametrize("folder", ["/work", "/tmp", "/dev/shm"])
def test_many_files_fill_no_more_than_their_room(sandbox: Sandbox, folder: str) -> None:
    program = (
        "written = 0\n"
        "try:\n"
        "    for i in range(100):\n"
        f"        with open('{folder}/' + str(i), 'wb') as file:\n"
        "            written += file.write(bytes(100_000))\n"
        "except OSError:\n"
        "    print(written)\n"
    )
    outcome = sandbox.run(python_job(program))
    assert 0 < int(outcome.stdout) <= LIMITS.file_bytes


@pytest.mark.parametrize("path", ["/x", "/dev/x", "/usr/x", "/etc/x", "/proc/sys/kernel/hostname"])
def test_nothing_else_can_be_written(sandbox: Sandbox, path: str) -> None:
    assert b"OSError" in _error_of(sandbox, f"open('{path}', 'w').write('x')")


def test_open_files_are_bounded(sandbox: Sandbox) -> None:
    assert b"Too many open files" in _error_of(
        sandbox, "held = [open('/dev/null') for _ in range(100)]"
    )


def _error_of(sandbox: Sandbox, program: str) -> bytes:
    return sandbox.run(
        python_job(f"try:\n    {program}\nexcept OSError as e:\n    print('OSError', e)")
    ).stdout
