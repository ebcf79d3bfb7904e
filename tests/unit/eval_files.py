"""Small MBPP and MultiPL-E files, and predictions for them, written by tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mira_megatron.eval.language_probes import PROBES
from mira_megatron.eval.sandbox import interpreter

ADD = {
    "task_id": "Mbpp/1001",
    "prompt": '"""\nAdd two numbers.\nassert add(1, 2) == 3\n"""\n',
    "entry_point": "add",
    "canonical_solution": "\ndef add(a, b):\n    return a + b\n",
    "base_input": [[1, 2], [0, 0]],
    "plus_input": [[-5, 5], [2, 2]],
    "atol": 0,
}
HALF = {
    **ADD,
    "task_id": "Mbpp/1002",
    "prompt": '"""\nHalf of a number.\n"""\n',
    "entry_point": "half",
    "canonical_solution": "\ndef half(a):\n    return a / 2\n",
    "base_input": [[1]],
    "plus_input": [[3], [7]],
}


def write_lines(path: Path, entries: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def write_mbpp(path: Path, *tasks: Mapping[str, Any]) -> Path:
    return write_lines(path, tasks or (ADD, HALF))


# The same task in every language: prompt, a right and a wrong completion, tests.
MULTIPL_E: Mapping[str, tuple[str, str, str, str]] = {
    language: (probe.prompt, probe.right, probe.wrong, probe.tests)
    for language, probe in PROBES.items()
}
MULTIPL_E_TASK = "HumanEval_53_add"


def other_system_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has this machine's python3 say another version; no sandbox sees it."""
    python = folder / "bin/python3"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho Python 3.0.0\n")
    python.chmod(0o755)
    monkeypatch.setattr(interpreter, "SEARCH_PATH", str(python.parent))


def write_multipl_e(path: Path, language: str) -> Path:
    prompt, _, _, tests = MULTIPL_E[language]
    entry = {"name": MULTIPL_E_TASK, "language": language, "prompt": prompt, "tests": tests}
    return write_lines(path, [entry])
