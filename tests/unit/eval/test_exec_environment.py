from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxed_jobs import LIMITS

from mira_megatron.eval.exec_environment import exec_environment, failing_imports
from mira_megatron.eval.sandbox.contract import Sandbox
from mira_megatron.eval.sandbox.interpreter import system_interpreter
from mira_megatron.eval.stdin_programs import run_on_inputs
from mira_megatron.eval.unittest_runs import run_with_tests
from mira_megatron.eval.verdicts import Status

SYSTEM_PYTHON = Path(system_interpreter().path)


@pytest.fixture(scope="module")
def environment_folder() -> Iterator[Path]:
    """A virtual environment with one package, where a sandbox can see it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="mira-test-") as name:
        folder = Path(name) / "env"
        Path(name).chmod(0o755)
        made = subprocess.run(
            [SYSTEM_PYTHON, "-m", "venv", "--without-pip", folder], capture_output=True, check=False
        )
        if made.returncode:
            pytest.skip(f"no virtual environment can be made here: {made.stderr.decode()[-80:]}")
        (site,) = folder.glob("lib/python3*/site-packages")
        (site / "only_there.py").write_text("ANSWER = 42\n")
        (site / "only_there-1.5.dist-info").mkdir()
        (site / "only_there-1.5.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: only-there\nVersion: 1.5\n"
        )
        yield folder


def test_programs_see_the_libraries_of_a_named_environment(
    sandbox: Sandbox, environment_folder: Path
) -> None:
    environment = exec_environment(environment_folder / "bin" / "python")
    assert environment.packages == ("only-there==1.5",)
    program = "import only_there\nprint(only_there.ANSWER)"
    runs = run_on_inputs(
        sandbox, program, [""], cpu_seconds=5, limits=LIMITS, interpreter=environment.interpreter
    ).runs
    assert [run.stdout for run in runs] == ["42\n"]
    assert failing_imports(sandbox, environment, ["only_there"]) == {}
    tests = (
        "import unittest\nclass TestCases(unittest.TestCase):\n    def test_answer(self):\n"
        "        self.assertEqual(only_there.ANSWER, 42)\n"
    )
    ran = run_with_tests(sandbox, environment.interpreter, program, tests, LIMITS)
    assert (ran.status, ran.detail) == (Status.PASS, "")


def test_an_environment_cannot_be_written_by_what_runs_in_it(
    sandbox: Sandbox, environment_folder: Path
) -> None:
    environment = exec_environment(environment_folder / "bin" / "python")
    program = "import only_there\nopen(only_there.__file__, 'w')"
    (run,) = run_on_inputs(
        sandbox, program, [""], cpu_seconds=5, limits=LIMITS, interpreter=environment.interpreter
    ).runs
    assert "Read-only file system" in run.detail


def test_another_library_is_another_environment(environment_folder: Path) -> None:
    here = exec_environment(SYSTEM_PYTHON)
    there = exec_environment(environment_folder / "bin" / "python")
    assert here.digest == exec_environment(SYSTEM_PYTHON).digest != there.digest


def test_imports_that_fail_are_named_one_by_one(sandbox: Sandbox) -> None:
    names = ["json", "no_such_module", "os.path", "json.no_such_part", "this.x"]
    failures = failing_imports(sandbox, exec_environment(SYSTEM_PYTHON), names)
    assert list(failures) == ["no_such_module", "json.no_such_part", "this.x"]
    assert failures["no_such_module"].startswith("exit code 1: ModuleNotFoundError")


def test_a_name_that_is_no_module_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="is no module's name"):
        failing_imports(sandbox, exec_environment(SYSTEM_PYTHON), ["json; print(1)"])


def test_an_interpreter_that_is_not_there_or_is_none_is_said_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="python=/no/such/python is not there"):
        exec_environment(Path("/no/such/python"))
    with pytest.raises(ValueError, match="python=/bin/false does not start"):
        exec_environment(Path("/bin/false"))


def test_an_environment_that_a_sandbox_hides_is_refused_with_the_way_out(tmp_path: Path) -> None:
    if not tmp_path.is_relative_to("/tmp"):
        pytest.skip("temporary folders are not under /tmp here")
    (tmp_path / "env" / "bin").mkdir(parents=True)
    python = tmp_path / "env" / "bin" / "python"
    shutil.copy(SYSTEM_PYTHON.resolve(), python)
    with pytest.raises(ValueError, match="make the environment elsewhere"):
        exec_environment(python)
