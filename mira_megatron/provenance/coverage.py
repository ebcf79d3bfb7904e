"""Which tokens a Megatron dataset shows to training, replayed from Megatron's own indices.

Shape letters: S sequences of the .idx, O occurrences in the document index (S times the epochs), N
samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from megatron.core.datasets.gpt_dataset import GPTDataset

from mira_megatron.provenance.index_caches import is_permutation

# Occurrences or samples looked at together: what lies beside the arrays of Coverage stays small.
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """What training reads of a GPTDataset when it draws its first samples, each once."""

    num_samples: int
    num_drawn: int  # of these, in the order of the shuffle index
    num_epochs: int  # that the document index lays end to end
    times_exposed_S: npt.NDArray[np.int64]  # how often each sequence stands in the document index
    times_seen_S: npt.NDArray[np.int32]  # how often each is drawn from its first to its last token
    tokens_seen_S: npt.NDArray[np.int64]  # tokens of each inside a drawn sample, all times together
    tail_tokens: int  # at the end of the document order, left out because they fill no sample

    @property
    def num_tokens_seen(self) -> int:
        """Returns the tokens that some sample holds (as input or as the last label)."""
        return int(self.tokens_seen_S.sum())


def dataset_coverage(dataset: GPTDataset, *, num_drawn: int | None = None) -> Coverage:
    """Returns what the first `num_drawn` samples read (None: all), from the dataset's indices.

    Samples tile the concatenated documents, neighbours sharing the one token that is the last label
    of the first and the first input of the second. Needs 8 bytes per occurrence, 24 per sequence
    and 18 per sample. Raises ValueError where the indices are not of this .idx (a stale cache).
    """
    lengths_S = np.array(dataset.dataset.sequence_lengths)  # Megatron unmaps the file under it
    order_O = np.asarray(dataset.document_index)
    _check_sequences(dataset, order_O, len(lengths_S))
    ends_O = np.cumsum(lengths_S[order_O], dtype=np.int64)
    num_samples = len(dataset.sample_index) - 1
    _check_tiles(dataset, ends_O)
    if not is_permutation(dataset.shuffle_index, num_samples):
        raise _stale(dataset, f"it does not draw each of its {num_samples:,} samples once")
    drawn = num_samples if num_drawn is None else min(num_drawn, num_samples)
    covered = _CoveredTokens.of_samples(dataset, drawn)
    exposed_S = np.zeros(len(lengths_S), dtype=np.int64)
    seen_S = np.zeros(len(lengths_S), dtype=np.int32)
    tokens_S = np.zeros(len(lengths_S), dtype=np.int64)
    for at in range(0, len(order_O), _CHUNK):
        sequences = order_O[at : at + _CHUNK]
        ends, lengths = ends_O[at : at + _CHUNK], lengths_S[sequences]
        tokens = covered.before(ends) - covered.before(ends - lengths)
        np.add.at(exposed_S, sequences, 1)
        np.add.at(seen_S, sequences, (tokens == lengths).astype(np.int32))
        np.add.at(tokens_S, sequences, tokens)
    total = int(ends_O[-1]) if len(ends_O) else 0
    return Coverage(
        num_samples=num_samples,
        num_drawn=drawn,
        num_epochs=len(order_O) // max(len(dataset.indices), 1),
        times_exposed_S=exposed_S,
        times_seen_S=seen_S,
        tokens_seen_S=tokens_S,
        tail_tokens=total - covered.end_of(num_samples),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _CoveredTokens:
    """Which places of the concatenated documents lie in a drawn sample."""

    sequence_length: int
    extra: int  # 1 where samples end with one more token, the last label
    is_drawn_N: npt.NDArray[np.bool_]  # and one more, False, for what follows the last sample
    inputs_before_N: npt.NDArray[np.int64]  # tokens of drawn samples before each sample
    labels_until_N: npt.NDArray[np.int64]  # last labels that are no drawn sample's input, so far

    @classmethod
    def of_samples(cls, dataset: GPTDataset, num_drawn: int) -> _CoveredTokens:
        """Returns the places of the first `num_drawn` samples in the shuffle index."""
        length = int(dataset.config.sequence_length)
        extra = int(dataset.config.add_extra_token_to_sequence)
        is_drawn = np.zeros(len(dataset.sample_index), dtype=bool)
        is_drawn[np.asarray(dataset.shuffle_index[:num_drawn])] = True
        is_label_alone = np.zeros(len(is_drawn), dtype=bool)
        is_label_alone[1:] = is_drawn[:-1] & ~is_drawn[1:]
        before = np.cumsum(is_drawn, dtype=np.int64)
        return cls(
            sequence_length=length,
            extra=extra,
            is_drawn_N=is_drawn,
            inputs_before_N=(before - is_drawn) * length,
            labels_until_N=np.cumsum(is_label_alone, dtype=np.int64) * extra,
        )

    def before(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Returns how many covered tokens stand before each place."""
        last = len(self.is_drawn_N) - 1
        samples = np.minimum(places // self.sequence_length, last)
        inside = (places - samples * self.sequence_length) * self.is_drawn_N[samples]
        labels = np.clip((places - 1) // self.sequence_length, 0, last)
        before: npt.NDArray[np.int64] = (
            self.inputs_before_N[samples] + inside + self.labels_until_N[labels]
        )
        return before

    def end_of(self, num_samples: int) -> int:
        """Returns the place after the last token of all samples, drawn or not."""
        return num_samples * self.sequence_length + self.extra if num_samples else 0


def _check_sequences(
    dataset: GPTDataset, order_O: npt.NDArray[np.int32], num_sequences: int
) -> None:
    if len(order_O) and not 0 <= int(order_O.min()) <= int(order_O.max()) < num_sequences:
        raise _stale(dataset, f"it names sequence {int(order_O.max()):,} of {num_sequences:,}")


def _check_tiles(dataset: GPTDataset, ends_O: npt.NDArray[np.int64]) -> None:
    """Raises ValueError unless sample n starts at token n * sequence_length, to the last one."""
    samples = dataset.sample_index
    for at in range(0, len(samples), _CHUNK):
        chunk = np.asarray(samples[at : at + _CHUNK], dtype=np.int64)
        if int(chunk[:, 0].max()) >= len(ends_O):
            raise _stale(dataset, f"it starts a sample in document {int(chunk[:, 0].max()):,}")
        starts = np.where(chunk[:, 0] > 0, ends_O[chunk[:, 0] - 1], 0) + chunk[:, 1]
        wanted = np.arange(at, at + len(chunk)) * dataset.config.sequence_length
        if (starts != wanted).any():
            number = at + int(np.argmax(starts != wanted))
            raise _stale(dataset, f"its sample {number:,} does not start where one has to")


def _stale(dataset: GPTDataset, why: str) -> ValueError:
    return ValueError(
        f"{dataset.dataset_path}: Megatron's index cache {dataset.unique_description_hash} was not "
        f"made of this .idx: {why}. Delete it (`mira tokens doctor` names the files)."
    )
