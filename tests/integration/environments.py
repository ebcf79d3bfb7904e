"""The Pythons of the environments that tests/environments builds outside the clone."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

_REPOSITORY = Path(__file__).parents[2]


def environment_python(name: str) -> Path:
    """Returns an environment's Python; without one the test skips, and fails under CI=true."""
    command = [str(_REPOSITORY / "tests" / "environments" / f"{name}.sh"), "--where"]
    folder = Path(
        subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    )
    python = folder / "bin" / "python"
    if not python.is_file():
        message = f"{folder}: no {name} environment. Build it with `make {name}`."
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return python


def run_probe(python: Path, scripts: Sequence[str], arguments: Sequence[str], folder: Path) -> Any:
    """Returns the JSON that scripts beside this file write to <folder>/result.json.

    The first script is run, and is given the others and the arguments.
    """
    here = Path(__file__).parent
    search = [_REPOSITORY, _REPOSITORY / "recipes"]
    outcome = subprocess.run(
        [str(python), *(str(here / script) for script in scripts), *arguments],
        cwd=folder,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(map(str, search)),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    return json.loads((folder / "result.json").read_bytes())
