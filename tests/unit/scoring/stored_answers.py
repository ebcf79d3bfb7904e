"""Answers to store, and journals as they are left by whoever was killed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from mira_megatron.scoring.stored_answer import Charged, StoredAnswer, answer_line

ONE = Charged(num_prompt_tokens=10, num_output_tokens=2)  # what an answer of these costs


def key(number: int) -> str:
    return f"{number:032x}"


def stored(number: int, text: str | None = "fine", **changes: object) -> StoredAnswer:
    answer = StoredAnswer(
        key=key(number),
        model="m",
        charged=ONE,
        text=text,
        reasoning=None,
        finish_reason="stop",
        num_prompt_tokens=10,
        num_output_tokens=2,
        failure=None,
        failure_detail=None,
    )
    return replace(answer, **changes)  # type: ignore[arg-type]


def left_journal(folder: Path, *lines: StoredAnswer | Mapping[str, Any] | bytes) -> Path:
    """Returns a journal whose writer is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "0a1b.jsonl"
    encoded = (
        line
        if isinstance(line, bytes)
        else answer_line(line)
        if isinstance(line, StoredAnswer)
        else orjson.dumps(line) + b"\n"
        for line in lines
    )
    path.write_bytes(b"".join(encoded))
    return path
