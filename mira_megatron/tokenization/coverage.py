"""Which tokens a Megatron dataset shows to training, replayed from Megatron's own indices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from megatron.core.datasets.gpt_dataset import GPTDataset


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """What one full pass over a GPTDataset reads; S sequences of its .idx."""

    num_samples: int
    times_exposed_S: npt.NDArray[np.int64]  # how often each sequence stands in the document index
    tokens_seen_S: npt.NDArray[np.int64]  # tokens of each sequence inside some sample, per pass
    tail_tokens: int  # at the end of the document order, left out because they fill no sample

    @property
    def num_tokens_seen(self) -> int:
        """Returns the tokens that some sample holds (as input or as the last label)."""
        return int(self.tokens_seen_S.sum())


def dataset_coverage(dataset: GPTDataset) -> Coverage:
    """Returns what a full pass reads, replayed from the dataset's document and sample index.

    Samples tile the concatenated documents, neighbours sharing the one token that is the last label
    of the first and the first input of the second; so the tokens read are a prefix of the
    concatenation, and what follows it is the tail.
    """
    lengths_S = np.array(dataset.dataset.sequence_lengths, dtype=np.int64)
    order = np.asarray(dataset.document_index, dtype=np.int64)
    samples = np.asarray(dataset.sample_index, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths_S[order])])
    num_samples = len(samples) - 1
    sample_starts = starts[samples[:, 0]] + samples[:, 1]
    assert (np.diff(sample_starts) == dataset.config.sequence_length).all(), "samples must tile"
    extra = int(dataset.config.add_extra_token_to_sequence)
    end = int(sample_starts[-1]) + extra if num_samples else 0
    seen = np.clip(end - starts[:-1], 0, lengths_S[order])
    return Coverage(
        num_samples=num_samples,
        times_exposed_S=np.bincount(order, minlength=len(lengths_S)),
        tokens_seen_S=np.bincount(order, weights=seen, minlength=len(lengths_S)).astype(np.int64),
        tail_tokens=int(starts[-1]) - end,
    )
