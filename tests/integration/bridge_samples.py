"""Samples in our input/output form, and what of them is to be learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

SAMPLES = [
    ("<|im_start|>user\nRate  this: {x} <|im_end|>\n<|im_start|>assistant\n", "[A1] depth: 7/10"),
    ("<|im_start|>user\n第二条 naïve\n\n<|im_end|>\n<|im_start|>assistant\n", "[A1] depth: 10/10"),
    ("<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n", "[A1] depth: n/a\n[A2] tone: 0/10"),
]


def write_samples(folder: Path) -> None:
    """Writes the samples as a source group's training and validation file."""
    folder.mkdir()
    lines = [
        json.dumps(
            {"input": given, "output": f"{answer}<|im_end|>", "record_id": "r", "source": "s"}
        )
        for given, answer in SAMPLES
    ]
    for name in ("training", "validation"):
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def trained_pairs(tokenizer: Tokenizer, given: str, answer: str) -> list[list[int]]:
    """Returns [context ids, the ids to be learned after them], by the definition of our format."""
    prompt = tokenizer.encode(given, add_special_tokens=False).ids
    output = tokenizer.encode(f"{answer}<|im_end|>", add_special_tokens=False).ids
    return [prompt, output]


def learned(batch: dict[str, Any], start: int, end: int) -> list[list[int]]:
    """Returns [ids before the first label with loss, the labels with loss], in one sample."""
    mask = batch["loss_mask"][start:end]
    first, count = mask.index(1), sum(mask)
    assert mask[first : first + count] == [1] * count, "the loss has a gap"
    context = batch["tokens"][start : start + first + 1]
    return [context, batch["labels"][start + first : start + first + count]]
