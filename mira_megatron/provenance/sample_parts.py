"""Samples of a training prefix as parts of sequences, and sequences as parts of samples.

Megatron's samples tile the sequences in the order of `document_index`: row j of `sample_index`
reads sequence_length + 1 tokens from token j x sequence_length on (megatron.core 0.16.1,
gpt_dataset.py). The last of them is a label only, and the first input of row j + 1.

Shape letters: E entries of the document index, K samples of the prefix, S sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mira_megatron.provenance.cached_indices import PrefixIndices


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplePart:
    """Consecutive tokens of one sequence that one sample reads."""

    sample: int  # of the prefix
    sample_start: int  # the first token's place in the sample, 0..sequence_length
    sequence: int  # of the prefix
    sequence_start: int  # the first token's place in the sequence
    num_tokens: int


def parts_of_sample(
    indices: PrefixIndices,
    lengths_S: npt.NDArray[np.int32],
    sample: int,
    *,
    sequence_length: int,
) -> list[SamplePart]:
    """Returns what a sample reads, in its order, sequences without a token left out.

    Raises ValueError where the indices were made for another `.idx`.
    """
    row = int(indices.shuffle_index[sample])
    (first, start), (last, end) = indices.sample_index[row : row + 2].tolist()
    sequences = np.asarray(indices.document_index[first : last + 1], dtype=np.int64)
    if not len(sequences) or sequences.max() >= len(lengths_S):
        raise _stale(indices)
    ends = lengths_S[sequences].astype(np.int64)
    starts = np.zeros_like(ends)
    is_past_end = end >= ends[-1]
    starts[0], ends[-1] = start, end + 1
    num_tokens = ends - starts
    if is_past_end or num_tokens.min() < 0 or num_tokens.sum() != sequence_length + 1:
        raise _stale(indices)
    sample_starts = np.cumsum(num_tokens) - num_tokens
    return [
        SamplePart(
            sample=sample,
            sample_start=int(sample_starts[at]),
            sequence=int(sequences[at]),
            sequence_start=int(starts[at]),
            num_tokens=int(num_tokens[at]),
        )
        for at in np.flatnonzero(num_tokens)
    ]


def parts_of_sequences(
    indices: PrefixIndices,
    lengths_S: npt.NDArray[np.int32],
    sequences: npt.NDArray[np.int64],
    *,
    sequence_length: int,
) -> list[SamplePart]:
    """Returns where samples of the prefix read any token of these sequences, in reading order.

    A sequence stands there once per epoch and repeat; tokens of the prefix's tail stand in no
    sample. Takes about 12 bytes per entry of the document index and 16 per sample. Raises
    ValueError where the indices were made for another `.idx`.
    """
    starts_E = _entry_starts(indices, lengths_S, sequence_length)
    parts: list[tuple[int, SamplePart]] = []
    for entry in np.flatnonzero(np.isin(indices.document_index, sequences)).tolist():
        sequence = int(indices.document_index[entry])
        start, num_tokens = int(starts_E[entry]), int(lengths_S[sequence])
        end = start + num_tokens
        # A token at a multiple of sequence_length is also the last label of the row before.
        first_row = max(start - 1, 0) // sequence_length
        last_row = min((end - 1) // sequence_length, indices.num_samples - 1)
        for row in range(first_row, last_row + 1):
            row_start = row * sequence_length
            read_from = max(start, row_start)
            read_to = min(end, row_start + sequence_length + 1)
            part = SamplePart(
                sample=-1,
                sample_start=read_from - row_start,
                sequence=sequence,
                sequence_start=read_from - start,
                num_tokens=read_to - read_from,
            )
            parts.append((row, part))
    return _with_samples(indices, parts)


def _entry_starts(
    indices: PrefixIndices, lengths_S: npt.NDArray[np.int32], sequence_length: int
) -> npt.NDArray[np.int64]:
    """Returns how many tokens lie before each entry, after a check that the samples tile them."""
    if indices.document_index.max() >= len(lengths_S):
        raise _stale(indices)
    lengths_E = lengths_S[indices.document_index]
    starts_E = np.cumsum(lengths_E, dtype=np.int64)
    starts_E -= lengths_E
    entries_K, offsets_K = indices.sample_index[:, 0], indices.sample_index[:, 1]
    if entries_K.max() >= len(starts_E):
        raise _stale(indices)
    tokens_K = starts_E[entries_K] + offsets_K
    if not np.array_equal(tokens_K, np.arange(len(tokens_K)) * sequence_length):
        raise _stale(indices)
    return starts_E


def _with_samples(indices: PrefixIndices, parts: list[tuple[int, SamplePart]]) -> list[SamplePart]:
    """Returns parts with the samples that the shuffle makes of their rows."""
    rows = np.array(sorted({row for row, _ in parts}), dtype=np.int64)
    samples = np.flatnonzero(np.isin(indices.shuffle_index, rows))
    sample_of = dict(zip(indices.shuffle_index[samples].tolist(), samples.tolist(), strict=True))
    return [
        SamplePart(
            sample=sample_of[row],
            sample_start=part.sample_start,
            sequence=part.sequence,
            sequence_start=part.sequence_start,
            num_tokens=part.num_tokens,
        )
        for row, part in parts
    ]


def _stale(indices: PrefixIndices) -> ValueError:
    return ValueError(
        f"{indices.path}: these indices were not made for the prefix as it is: its samples are no "
        "whole sequences of the .idx. Its files changed since (a trainer would read other tokens "
        "now), or the cache is damaged; give no cache folder to have the indices rebuilt."
    )
