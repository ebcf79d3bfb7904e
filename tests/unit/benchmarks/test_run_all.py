from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN_ALL = Path(__file__).parents[3] / "benchmarks" / "run_all.py"
GOOD = """import json
speed = {"name": "speed", "ours": OURS, "peer": 1, "unit": "x/s", "ratio": OURS, "bar": 2}
print(json.dumps(speed))
raise SystemExit(OURS < 2)
"""
CRASHING = "import sys\nprint('x', file=sys.stderr)\nraise RuntimeError('the | disk is full')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(RUN_ALL, tmp_path / "run_all.py")
    return tmp_path


def write(folder: Path, name: str, ours: float) -> None:
    (folder / f"{name}.py").write_text(GOOD.replace("OURS", str(ours)))


def run(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "run_all.py"), *names]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def results(folder: Path) -> str:
    return (folder / "RESULTS.md").read_text()


def test_every_script_has_its_figures_its_command_and_the_machine(folder: Path) -> None:
    write(folder, "first", 3)
    write(folder, "second", 2.5)
    assert run(folder).returncode == 0
    text = results(folder)
    assert "| `first.py` | speed | 3 | 1 | x/s | 3 | 2 |\n" in text
    assert "| `second.py` | speed | 2.5 | 1 | x/s | 2.5 | 2 |\n" in text
    assert "| `first.py` | `python benchmarks/first.py` | 20" in text
    assert text.count("| 1 | passed |") == 2
    (machine,) = [line for line in text.splitlines() if line.startswith("1. ")]
    for what in (
        "cores",
        "GiB of memory",
        "Linux ",
        f"Python {sys.version.split()[0]}",
        "pyarrow ",
    ):
        assert what in machine


def test_a_figure_below_its_bar_fails_the_whole_and_is_listed(folder: Path) -> None:
    write(folder, "first", 1.5)
    write(folder, "second", 3)
    done = run(folder)
    assert done.returncode == 1
    assert "| `first.py` | speed | 1.5 | 1 | x/s | 1.5 | 2 |\n" in results(folder)
    assert "| 1 | below its bar |" in results(folder)
    assert done.stderr == "first: below its bar\n"


def test_a_script_that_crashes_is_listed_with_its_last_words(folder: Path) -> None:
    (folder / "broken.py").write_text(CRASHING)
    write(folder, "first", 3)
    done = run(folder)
    assert done.returncode == 1
    assert "failed, exit code 1: RuntimeError: the \\| disk is full |" in results(folder)
    assert "| `first.py` | speed | 3 |" in results(folder)
    assert "Traceback" in done.stderr


def test_a_crash_after_the_first_figure_is_no_missed_bar(folder: Path) -> None:
    (folder / "first.py").write_text(GOOD.replace("OURS", "3").replace("3 < 2", "1/0"))
    run(folder)
    assert "| `first.py` | speed | 3 |" in results(folder)
    assert "failed, exit code 1: ZeroDivisionError" in results(folder)


def test_a_line_that_is_no_figure_is_a_failure(folder: Path) -> None:
    (folder / "first.py").write_text("print('hello')\n")
    assert run(folder).returncode == 1
    assert "failed: no figure: hello |" in results(folder)


def test_naming_a_script_keeps_the_rows_of_the_others(folder: Path) -> None:
    write(folder, "first", 3)
    (folder / "broken.py").write_text(CRASHING)
    run(folder)
    before = results(folder).replace(" cores", " fast cores")
    (folder / "RESULTS.md").write_text(before)
    write(folder, "first", 9)  # is not run again
    write(folder, "second", 4)
    assert run(folder, "second.py").returncode == 0
    after = results(folder)
    assert "| `first.py` | speed | 3 | 1 | x/s | 3 | 2 |\n" in after
    assert "| `second.py` | speed | 4 | 1 | x/s | 4 | 2 |\n" in after
    assert "RuntimeError: the \\| disk is full |\n" in after
    assert "fast cores" in after  # where the first was measured
    runs = after.partition("## Runs")[2]
    machines = {
        line.split("`")[1]: line.split(" | ")[3] for line in runs.splitlines() if "`" in line
    }
    assert machines == {"broken.py": "1", "first.py": "1", "second.py": "2"}


def test_rows_of_a_file_that_tells_no_machine_stay_too(folder: Path) -> None:
    write(folder, "first", 3)
    write(folder, "second", 4)
    old = "# Benchmark results\n\n| script | name |\n|---|---|\n| `first.py` | speed | 7 |\n"
    (folder / "RESULTS.md").write_text(old)
    assert run(folder, "second").returncode == 0
    assert "| `first.py` | speed | 7 |\n" in results(folder)
    assert "| `first.py` | `python benchmarks/first.py` | n/a |" in results(folder)
    rows = results(folder)
    assert run(folder, "second").returncode == 0
    assert results(folder) == rows


def test_a_script_that_is_gone_loses_its_rows(folder: Path) -> None:
    write(folder, "first", 3)
    write(folder, "second", 4)
    run(folder)
    (folder / "first.py").unlink()
    run(folder, "second")
    assert "first" not in results(folder)


def test_an_unknown_name_is_refused_with_the_nearest(folder: Path) -> None:
    write(folder, "parse_replies", 3)
    done = run(folder, "parse_reply")
    assert done.returncode == 2
    assert done.stderr == "parse_reply: no such benchmark. Did you mean 'parse_replies'?\n"
    assert not (folder / "RESULTS.md").exists()
