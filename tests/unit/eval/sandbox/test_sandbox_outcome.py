from __future__ import annotations

from pathlib import Path

import pytest
from sandboxed_jobs import LIMITS, limited, python_job

from mira_megatron.eval.sandbox.contract import Job, Sandbox, SandboxError


def test_job_sees_its_files_and_input_and_hands_results_out(sandbox: Sandbox) -> None:
    program = (
        "import os, sys\n"
        "text = open('folder/table.csv').read() + sys.stdin.read()\n"
        "os.write(int(os.environ['MIRA_RESULTS_FD']), text.encode())\n"
        "print('seen'); print('said', file=sys.stderr); sys.exit(3)\n"
    )
    job = python_job(program, files={"folder/table.csv": b"a,b\n"}, stdin=b"c")
    outcome = sandbox.run(job)
    assert outcome.results == b"a,b\nc"
    assert (outcome.stdout, outcome.stderr) == (b"seen\n", b"said\n")
    assert (outcome.exit_code, outcome.signal, outcome.is_success) == (3, None, False)
    assert outcome.isolation == sandbox.level
    assert outcome.num_output_bytes == 10


def test_long_input_that_nobody_reads_blocks_nothing(sandbox: Sandbox) -> None:
    outcome = sandbox.run(python_job("print(1)", stdin=bytes(1 << 20)))
    assert outcome.stdout == b"1\n"


def test_long_input_arrives_whole(sandbox: Sandbox) -> None:
    program = "import sys; print(len(sys.stdin.buffer.read()))"
    assert sandbox.run(python_job(program, stdin=bytes(3 << 20))).stdout == b"3145728\n"


def test_killed_program_is_told_by_its_signal_and_prints_nothing_more(sandbox: Sandbox) -> None:
    outcome = sandbox.run(python_job("import os; os.abort()"))
    assert (outcome.exit_code, outcome.signal) == (None, 6)
    assert outcome.stderr == b""


def test_cpu_and_memory_of_the_program_are_counted(sandbox: Sandbox) -> None:
    program = (
        "import time\nheld = bytes([1]) * (100 << 20)\nwhile time.process_time() < 0.4:\n    pass\n"
    )
    outcome = sandbox.run(python_job(program))
    assert outcome.cpu_seconds >= 0.4
    assert outcome.peak_bytes is not None
    assert outcome.peak_bytes > 100 << 20


def test_cpu_of_a_program_that_ran_out_of_time_is_counted(sandbox: Sandbox) -> None:
    program = "import time\nwhile time.process_time() < 0.3:\n    pass\ntime.sleep(300)\n"
    outcome = sandbox.run(python_job(program, limits=limited(wall_seconds=4)))
    assert outcome.is_timed_out
    assert outcome.cpu_seconds >= 0.2


def test_job_sees_no_environment_but_its_own(sandbox: Sandbox) -> None:
    program = "import os; print(*os.environ)"
    outcome = sandbox.run(python_job(program, environment={"GIVEN": "1"}))
    seen = set(outcome.stdout.decode().split())
    assert seen <= {
        *("GIVEN", "HOME", "LANG", "LC_CTYPE", "MIRA_RESULTS_FD"),
        *("OLDPWD", "PATH", "PWD", "SHLVL", "TMPDIR", "TZ", "_"),
    }
    assert "GIVEN" in seen


def test_sandbox_that_cannot_be_built_is_no_outcome(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="/nowhere-at-all"):
        sandbox.run(python_job("print(1)", read_only=(Path("/nowhere-at-all"),)))


def test_program_that_is_not_there_is_an_outcome(sandbox: Sandbox) -> None:
    outcome = sandbox.run(Job(argv=("no-such-program",), limits=LIMITS))
    assert outcome.exit_code == 127
    assert b"no-such-program" in outcome.stderr


@pytest.mark.parametrize("name", ["/etc/passwd", "../out", "a/../../out", "", "a\0b"])
def test_job_refuses_a_file_outside_work(name: str) -> None:
    with pytest.raises(ValueError, match="below /work"):
        Job(argv=("true",), files={name: b""}, limits=LIMITS)


def test_limits_refuse_zero() -> None:
    with pytest.raises(ValueError, match="cpu_seconds=0"):
        limited(cpu_seconds=0)


def test_results_come_through_a_descriptor_that_no_shell_uses_itself(sandbox: Sandbox) -> None:
    job = Job(argv=("sh", "-c", "echo $MIRA_RESULTS_FD"), limits=LIMITS)
    assert int(sandbox.run(job).stdout) >= 10
