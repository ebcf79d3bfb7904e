"""Runs the benchmarks here and writes RESULTS.md; exits 1 when one falls below its bar or fails.

    python benchmarks/run_all.py                 # all of them
    python benchmarks/run_all.py parse_replies   # this one; the rows of the others stay

RESULTS.md has a row per figure, and per script the command, the day, the machine and what came of
it. Rows that stay keep the day and the machine on which they were measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mira_megatron.config import nearest
from mira_megatron.written_tables import markdown_text

FOLDER = Path(__file__).parent
RESULTS = "RESULTS.md"
COLUMNS = ("name", "ours", "peer", "unit", "ratio", "bar")
PACKAGES = ("torch", "pyarrow", "numpy", "megatron-core", "aiohttp", "orjson")
RUNS, MACHINES = "## Runs", "## Machines"
PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one script: its figures, and its line in the table of runs."""

    figures: tuple[str, ...]  # lines of the table
    day: str
    machine: str
    result: str  # PASSED, or what is wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code; 2 for a name that no script has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a script; none: all of them")
    names = [name.removesuffix(".py") for name in parser.parse_args(arguments).names]
    scripts = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if path != Path(__file__)}
    for name in names:
        if name not in scripts:
            sys.stderr.write(f"{name}: no such benchmark.{nearest(name, scripts)}\n")
            return 2
    runs = _runs_before(FOLDER / RESULTS) if names else {}
    made = {name: _run(scripts[name]) for name in names or scripts}
    runs = {name: run for name, run in sorted({**runs, **made}.items()) if name in scripts}
    text = _results(runs)
    (FOLDER / RESULTS).write_text(text, encoding="utf-8")
    print(text)
    wrong = [f"{name}: {run.result}" for name, run in made.items() if run.result != PASSED]
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    return 1 if wrong else 0


def _run(script: Path) -> Run:
    """Runs one script, passing on what it writes to stderr, and returns what came of it."""
    last_line, has_traceback = "", False
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        command = [sys.executable, str(script)]
        with subprocess.Popen(
            command, stdout=output, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                sys.stderr.write(line)
                last_line = line.strip() or last_line
                has_traceback = has_traceback or line.startswith("Traceback ")
        output.seek(0)
        figures, fault = _figures(script, output.read().splitlines())
    if process.returncode == 0:
        result = fault or PASSED
    elif process.returncode == 1 and figures and not has_traceback:
        result = "below its bar" + (f" ({markdown_text(last_line)})" if last_line else "")
    else:
        result = f"failed, exit code {process.returncode}: {markdown_text(last_line) or 'no word'}"
    return Run(tuple(figures), datetime.now(UTC).date().isoformat(), _machine(), result)


def _figures(script: Path, lines: Sequence[str]) -> tuple[list[str], str | None]:
    """Returns the table's lines, and what is wrong with a line that is no figure."""
    figures: list[str] = []
    for line in lines:
        try:
            figure = json.loads(line)
            cells = [str(figure[column]) for column in COLUMNS]
        except (ValueError, KeyError, TypeError):
            return figures, f"failed: no figure: {markdown_text(line[:200])}"
        figures.append(f"| `{script.name}` | {' | '.join(cells)} |")
    return figures, None


def _results(runs: dict[str, Run]) -> str:
    machines = list(dict.fromkeys(run.machine for run in runs.values()))
    lines = [
        "# Benchmark results",
        "",
        "Written by `make bench`. Both sides of a figure run on the same machine in one run of the",
        "script; the ratio is what counts, seconds depend on the machine.",
        "",
        f"| script | {' | '.join(COLUMNS)} |",
        f"|---|{'---|' * len(COLUMNS)}",
        *(figure for run in runs.values() for figure in run.figures),
        "",
        RUNS,
        "",
        "| script | command | day | machine | result |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{name}.py` | `python benchmarks/{name}.py` | {run.day} | "
        f"{machines.index(run.machine) + 1} | {run.result} |"
        for name, run in runs.items()
    ]
    numbered = [f"{number}. {machine}" for number, machine in enumerate(machines, start=1)]
    return "\n".join([*lines, "", MACHINES, "", *numbered]) + "\n"


def _runs_before(path: Path) -> dict[str, Run]:
    """Returns what RESULTS.md says, by script; nothing where there is no such file."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    figures, _, rest = text.partition(f"\n{RUNS}\n")
    told, _, machines = rest.partition(f"\n{MACHINES}\n")
    machine_by_number = dict(line.split(". ", 1) for line in machines.splitlines() if line)
    lines_by_script: dict[str, list[str]] = {}
    for line in figures.splitlines():
        if line.startswith("| `"):
            lines_by_script.setdefault(_script_of(line), []).append(line)
    runs = {name: Run(tuple(lines), "n/a", "n/a", "n/a") for name, lines in lines_by_script.items()}
    for line in told.splitlines():
        if line.startswith("| `"):
            _, _, day, number, result = line.removesuffix(" |").split(" | ", 4)
            name = _script_of(line)
            lines = tuple(lines_by_script.get(name, ()))
            runs[name] = Run(lines, day, machine_by_number[number], result)
    return runs


def _script_of(line: str) -> str:
    return line.split("`", 2)[1].removesuffix(".py")


def _machine() -> str:
    """Returns what a figure depends on: the hardware, the system, and the packages."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = [f"{name} {found}" for name in PACKAGES if (found := _version(name))]
    return (
        f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory, "
        f"{platform.system()} {platform.release()} on {platform.machine()}, "
        f"Python {platform.python_version()}, {', '.join(packages)}"
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "CPU"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
