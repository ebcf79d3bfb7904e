"""Rows and predictions of SWE-bench for a made-up repository, and an engine that runs no container.

The engine is the one thing here that is not real: a script on PATH that prints what a container
would have, chosen by a word in the patch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

RIGHT, WRONG, REFUSED, SLOW, BROKEN = "RIGHT", "WRONG", "REFUSED", "SLOW", "BROKEN"
_ENGINE = r"""#!/bin/bash
here=$(dirname "$0")
printf '%s\0' "$@" >> "$here/calls"
echo >> "$here/calls"
if [ "$1" = kill ]; then
    kill -9 "$(cat "$here/$2.pid")"
    exit
fi
name= folder=
words=("$@")
for ((i = 0; i < $#; i++)); do
    case "${words[i]}" in
        --name) name=${words[i + 1]} ;;
        --volume | --bind) folder=${words[i + 1]%:/mira:ro} ;;
    esac
done
case "$(cat "$folder/patch.diff")" in
    *REFUSED*) echo "error: patch failed" >&2; exit 90 ;;
    *BROKEN*) echo "Error response from daemon: no such image" >&2; exit 125 ;;
    *SLOW*) echo ">>>>> Start Test Output"; echo $$ > "$here/$name.pid"; exec sleep 300 ;;
    *RIGHT*) result=PASS code=0 ;;
    *) result=FAIL code=1 ;;
esac
echo "applied" >&2
echo ">>>>> Start Test Output"
echo "--- $result: TestAdd (0.00s)"
printf -- '--- PASS: TestOld (0.00s)\n\xff\n'
echo ">>>>> End Test Output"
echo ">>>>> Test Exit Code: $code"
"""
_EVALUATION = """#!/bin/bash
set -uxo pipefail
: '>>>>> Start Test Output'
go test ./...
: '>>>>> End Test Output'
git checkout .
"""


def row(instance_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "instance_id": instance_id,
        "image": f"swebench/{instance_id}:latest",
        "repo": "mine/adder",
        "version": "1",
        "eval_script": _EVALUATION,
        "log_parser": "parse_log_gotest",
        "eval_type": "pass_and_fail",
        "FAIL_TO_PASS": json.dumps(["TestAdd"]),
        "PASS_TO_PASS": ["TestOld"],
        "patch": f"{RIGHT} {instance_id}",
        **changes,
    }


def write_rows(path: Path, *rows: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def write_patches(path: Path, patches: Mapping[str, str | None]) -> Path:
    """Writes predictions as mini-swe-agent does."""
    content = {
        name: {"instance_id": name, "model_name_or_path": "m", "model_patch": patch}
        for name, patch in patches.items()
    }
    path.write_text(json.dumps(content))
    return path


def install_engine(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the engine on PATH; returns the file that it writes its words to."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(_ENGINE)
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "calls"


def calls(path: Path) -> list[list[str]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split("\0")[:-1] for line in lines]
