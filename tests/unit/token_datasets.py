"""Token datasets made for tests: a token id tells its document, so samples can be traced back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from mira_megatron.retention.keep_masks import KeepMask, read_keep_mask, write_keep_mask
from mira_megatron.tokenization.index_file import bin_path, idx_path, index_fingerprint, read_index

EOD = 0
# Token t of document d is d * DOCUMENT_STRIDE + t + 1, the last one of a document is EOD.
DOCUMENT_STRIDE = 1000
VOCAB_SIZE = 1_000_000


def document(number: int, num_tokens: int) -> list[int]:
    """Returns a document's ids, EOD last; none at all for an empty one."""
    ids = [number * DOCUMENT_STRIDE + position + 1 for position in range(num_tokens)]
    return [*ids[:-1], EOD] if ids else []


def write_with_megatron(path_prefix: Path, lengths: Sequence[int]) -> None:
    """Writes documents with Megatron's own builder; an empty one gets no sequence, as there."""
    path_prefix.parent.mkdir(parents=True, exist_ok=True)
    builder = IndexedDatasetBuilder(str(bin_path(path_prefix)), dtype=np.int32)
    for number, num_tokens in enumerate(lengths):
        ids = document(number, num_tokens)
        builder.add_document(torch.tensor(ids, dtype=torch.int32), [len(ids)] if ids else [])
    builder.finalize(str(idx_path(path_prefix)))


def write_mask(path: Path, path_prefix: Path, is_kept: Sequence[bool]) -> KeepMask:
    """Writes and reads back a keep mask for the dataset at `path_prefix`."""
    mask: npt.NDArray[np.bool_] = np.array(is_kept, dtype=bool)
    write_keep_mask(
        path,
        mask,
        read_index(path_prefix).document_tokens(),
        idx_fingerprint=index_fingerprint(path_prefix),
        scores_fingerprint="0",
    )
    return read_keep_mask(path)


def blend(train: Sequence[Path], valid: Path, **changes: Any) -> dict[str, Any]:
    """Returns what `read_blend` would give for these prefixes."""
    return {
        "handover": "index_view",
        "sequence_length": 8,
        "train": [str(prefix) for prefix in train],
        "valid": [str(valid)],
        "keep_masks": {},
        "eod_id": EOD,
        "vocab_size": VOCAB_SIZE,
        **changes,
    }


@contextmanager
def one_process() -> Iterator[None]:
    """Initialises torch.distributed for one process, as Megatron's blends ask for."""
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]  # public; stubs omit it
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
