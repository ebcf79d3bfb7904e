"""A scorer's samples, training.jsonl or validation.jsonl, as sequences for our trainer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mira_megatron.distill.packed_dataset import PackedDataset, TokenSample
from mira_megatron.distill.scorer_tokenizer import ScorerTokenizer
from mira_megatron.distill.sft_files import read_rows


class SftDataset(PackedDataset):
    """Packed sequences of training.jsonl or validation.jsonl, `num_epochs` times.

    Raises ValueError for a sample that is longer than a sequence, and for a file without samples.
    """

    def __init__(
        self,
        rows: Path,
        tokenizer_file: Path,
        *,
        sequence_length: int,
        pad_id: int,
        seed: int,
        num_epochs: int = 1,
    ) -> None:
        super().__init__(
            _samples(rows, ScorerTokenizer(tokenizer_file), sequence_length),
            sequence_length=sequence_length,
            pad_id=pad_id,
            seed=seed,
            num_epochs=num_epochs,
        )


def _samples(rows: Path, tokenizer: ScorerTokenizer, sequence_length: int) -> Iterator[TokenSample]:
    number = 0
    for number, row in enumerate(read_rows(rows), start=1):
        prompt, answer = tokenizer.encode(row.input), tokenizer.encode(row.output)
        if len(prompt) + len(answer) - 1 > sequence_length or not len(prompt) * len(answer):
            raise ValueError(
                f"{rows}:{number}: record {row.record_id} has {len(prompt):,} prompt and "
                f"{len(answer):,} answer tokens; both must be there, and fit sequence_length="
                f"{sequence_length:,}. Make the samples anew with `mira sft-data`, for this "
                "length and this tokenizer."
            )
        ids = np.concatenate([prompt, answer])
        yield TokenSample(ids, np.arange(len(ids)) >= len(prompt))
    if not number:
        raise ValueError(f"{rows}: holds no sample. Make it with `mira sft-data`.")
