from __future__ import annotations

from pathlib import Path

import pytest
from bigcodebench_files import SYSTEM_PYTHON, bcb_row, write_bcb

from mira_megatron.cli import main
from mira_megatron.doctor.finding import ERROR, INFO, UNKNOWN, WARNING
from mira_megatron.doctor.library_checks import library_findings
from mira_megatron.eval.sandbox.best import best_sandbox
from mira_megatron.eval.sandbox.contract import Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return best_sandbox()
    except ValueError as error:
        pytest.skip(str(error))


def written_suite(folder: Path, python: Path = SYSTEM_PYTHON) -> Path:
    path = folder / "suite.yaml"
    path.write_text(
        "sampling: {greedy: {}}\nbenchmarks:\n  bigcodebench:\n    kind: bigcodebench\n"
        "    category: code_generation\n    file: full.parquet\n    protocol: p\n"
        f"    sampling: greedy\n    options: {{split: instruct, python: {python}}}\n"
    )
    return path


def test_a_library_that_tasks_name_and_that_is_not_there_is_a_warning(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = [bcb_row(), bcb_row("BigCodeBench/8", libs="['json', 'no_such_library']")]
    write_bcb(tmp_path / "full.parquet", *rows)
    (finding,) = library_findings(sandbox, written_suite(tmp_path), tmp_path)
    assert finding.level == WARNING
    assert finding.what.startswith("no_such_library, of 1 tasks, does not import: exit code 1")
    assert str(SYSTEM_PYTHON) in finding.way_out


def test_an_interpreter_with_all_libraries_is_said_to_have_them(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    write_bcb(tmp_path / "full.parquet")
    (finding,) = library_findings(sandbox, written_suite(tmp_path), tmp_path)
    assert finding.level == INFO


def test_data_that_is_not_there_yet_leaves_the_libraries_unknown(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    (finding,) = library_findings(sandbox, written_suite(tmp_path), tmp_path)
    assert finding.level == UNKNOWN
    assert "full.parquet" in finding.what


def test_an_interpreter_that_is_not_there_is_an_error(sandbox: Sandbox, tmp_path: Path) -> None:
    write_bcb(tmp_path / "full.parquet")
    suite = written_suite(tmp_path, Path("/no/such/python"))
    (finding,) = library_findings(sandbox, suite, tmp_path)
    assert finding.level == ERROR
    assert "/no/such/python is not there" in finding.what


def test_a_suite_is_looked_at_with_eval_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--suite", "eval/suites/mira9.yaml"]) == 2
    assert "--suite goes with --eval" in capsys.readouterr().err
