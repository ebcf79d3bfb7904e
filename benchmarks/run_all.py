"""Runs every benchmark here and writes RESULTS.md; exits 1 when one falls below its bar."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
COLUMNS = ("name", "ours", "peer", "unit", "ratio", "bar")


def main() -> int:
    """Returns the exit code."""
    rows, failed = [], []
    for script in sorted(FOLDER.glob("*.py")):
        if script.name == Path(__file__).name:
            continue
        done = subprocess.run(
            [sys.executable, script], stdout=subprocess.PIPE, text=True, check=False
        )
        rows += [{"script": script.name, **json.loads(line)} for line in done.stdout.splitlines()]
        if done.returncode:
            failed.append(script.name)
    (FOLDER / "RESULTS.md").write_text(_results(rows), encoding="utf-8")
    print((FOLDER / "RESULTS.md").read_text(encoding="utf-8"))
    if failed:
        sys.stderr.write(f"below their bar, or failed: {', '.join(failed)}\n")
    return 1 if failed else 0


def _results(rows: list[dict[str, object]]) -> str:
    lines = [
        "# Benchmark results",
        "",
        "Written by `make bench`. Both sides run in one process on the same input; the ratio is",
        "what counts, seconds depend on the machine.",
        "",
        f"Machine: {platform.machine()}, Python {platform.python_version()}.",
        "",
        f"| script | {' | '.join(COLUMNS)} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    lines += [
        f"| `{row['script']}` | {' | '.join(str(row[column]) for column in COLUMNS)} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
