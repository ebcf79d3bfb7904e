"""`mira swe` beside SWE-bench's own grader, which has an environment of its own (`make swe`)."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from environments import environment_python

pytestmark = pytest.mark.integration

_REPOSITORY = Path(__file__).parents[2]


def test_all_that_needs_the_official_grader_passes_there() -> None:
    words = ["-m", "pytest", "-p", "no:cacheprovider", "tests/unit/eval/swe/test_swe_tool.py"]
    ended = subprocess.run(
        [str(environment_python("swe")), *words],
        cwd=_REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    # One that is skipped there has run nowhere.
    assert re.search(r"^=+ \d+ passed in ", ended.stdout, re.MULTILINE), ended.stdout[-3000:]
