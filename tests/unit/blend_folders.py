"""A selection from two sources as a blend's folder, for tests of whatever trainer reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mira_megatron import layout
from mira_megatron.retention.keep_masks import KeepMask, read_keep_mask, write_keep_mask
from mira_megatron.tokenization.handovers import write_index_view, write_physical_copy
from mira_megatron.tokenization.index_file import (
    bin_path,
    idx_path,
    index_fingerprint,
    one_sequence_per_document,
    read_index,
    write_index,
)

EOD = 0
VOCAB_SIZE = 1_000_000
# Token t of document d is d * DOCUMENT_STRIDE + t + 1, the last one of a document is EOD.
DOCUMENT_STRIDE = 1000
LENGTHS = {"a": [15, 0, 29, 13, 22], "b": [40, 8, 31]}
KEPT = {"a": [True, True, False, True, True], "b": [True, False, True]}
LEFT_OUT = {"a": {2}, "b": {1}}
HELD_OUT = {"v": [12, 9], "w": [12, 9]}
SEQUENCE_LENGTH = 8
ONE_PASS = (50 - 1) // SEQUENCE_LENGTH + (71 - 1) // SEQUENCE_LENGTH


def write_tokens(path_prefix: Path, lengths: Sequence[int]) -> None:
    """Writes documents whose tokens tell where they come from."""
    path_prefix.parent.mkdir(parents=True, exist_ok=True)
    ids = [
        EOD if position == length - 1 else number * DOCUMENT_STRIDE + position + 1
        for number, length in enumerate(lengths)
        for position in range(length)
    ]
    np.array(ids, dtype=np.int32).tofile(bin_path(path_prefix))
    index = one_sequence_per_document(np.array(lengths), np.dtype(np.int32))
    write_index(idx_path(path_prefix), index)


def write_blend(folder: Path, handover: str, **changes: Any) -> Path:
    """Writes the blend of one hand-over with all that it names, and returns its folder."""
    train, keep_masks = [], {}
    for name, lengths in LENGTHS.items():
        write_tokens(folder / name, lengths)
        mask = _write_mask(folder, name)
        train.append(str(_handed_over(folder, handover, name, mask)))
        if handover == "keep_mask_dataset":
            keep_masks[train[-1]] = str(mask.path)
    for name, lengths in HELD_OUT.items():
        write_tokens(folder / name, lengths)
    content = {
        "arm": "group",
        "handover": handover,
        "sequence_length": SEQUENCE_LENGTH,
        "train": train,
        "train_weights": None,
        "num_train_samples": ONE_PASS,
        "valid": [str(folder / name) for name in HELD_OUT],
        "test": [str(folder / name) for name in HELD_OUT],
        "keep_masks": keep_masks,
        "entries": [],
        "left_out": [],
        "eod_id": EOD,
        "vocab_size": VOCAB_SIZE,
        **changes,
    }
    path = folder / handover / layout.BLEND
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path.parent


def samples(dataset: Any) -> list[list[int]]:
    """Returns the tokens of every sample, and its last label."""
    return [
        [*sample["tokens"].tolist(), int(sample["labels"][-1])]
        for sample in (dataset[index] for index in range(len(dataset)))
    ]


def documents_of(samples: Sequence[Sequence[int]]) -> set[int]:
    """Returns the numbers of the documents that some token is of; the EOD tells none."""
    return {token // DOCUMENT_STRIDE for sample in samples for token in sample if token != EOD}


def left_out_of(samples: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, set[int]]:
    """Returns, of samples by source, the documents read that the selection leaves out."""
    return {name: documents_of(own) & LEFT_OUT[name] for name, own in samples.items()}


def _write_mask(folder: Path, name: str) -> KeepMask:
    path = folder / f"{name}.keep.npy"
    write_keep_mask(
        path,
        np.array(KEPT[name]),
        read_index(folder / name).document_tokens(),
        idx_fingerprint=index_fingerprint(folder / name),
        scores_fingerprint="0",
    )
    return read_keep_mask(path)


def _handed_over(folder: Path, handover: str, name: str, mask: KeepMask) -> Path:
    prefix = folder / handover / name
    match handover:
        case "index_view":
            write_index_view(folder / name, mask, prefix)
        case "physical_copy":
            write_physical_copy(folder / name, mask, prefix)
        case _:
            return folder / name
    return prefix
