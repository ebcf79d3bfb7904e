"""Samples of prompts and answers as sequences for our trainer: packed whole, loss on answers only.

A sample of n tokens takes n - 1 places: tokens are its ids but for the last, labels its ids but for
the first. Samples in one sequence know nothing of each other: attention ends at a sample's start,
and positions count from there. What is left of a sequence is padding, which is never attended to
from outside itself and has no loss.

Shape letters: N tokens of a sample, S sequence length in tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mira_megatron.distill.packing import first_fit


@dataclass(frozen=True, slots=True)
class TokenSample:
    """One prompt with its answer, or a conversation with several."""

    ids_N: npt.NDArray[np.int32]
    is_answer_N: npt.NDArray[np.bool_]  # what the model is to write; loss is on these alone


class PackedDataset:
    """Samples packed into sequences, `num_epochs` times; see `training.batches.TokenDataset`.

    Every epoch has as many sequences, in an order of its own; samples of equal length change places
    between epochs. Ids are kept as int32 and answers as bool: 5 bytes per token. Raises ValueError
    for samples of one token and for such as do not fit a sequence.
    """

    def __init__(
        self,
        samples: Iterable[TokenSample],
        *,
        sequence_length: int,
        pad_id: int,
        seed: int,
        num_epochs: int = 1,
    ) -> None:
        self._length = sequence_length
        self._pad_id = pad_id
        self._seed = seed
        self._num_epochs = num_epochs
        ids, is_answer, lengths = [], [], []
        for sample in samples:
            ids.append(sample.ids_N)
            is_answer.append(sample.is_answer_N)
            lengths.append(len(sample.ids_N))
        self._ids = np.concatenate(ids)
        self._is_answer = np.concatenate(is_answer)
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        # Where samples stand, longest first, is the same in every epoch: who stands there is not.
        sizes = np.sort(np.diff(self._starts) - 1)[::-1]
        bins = first_fit(sizes.tolist(), sequence_length)
        self._places = np.argsort(bins, kind="stable")
        self._first_place = np.searchsorted(bins[self._places], np.arange(bins.max() + 2))
        self._epoch = -1
        self._samples = self._sequences = np.zeros(0, np.int64)

    @property
    def num_samples(self) -> int:
        """Returns how many samples one epoch holds."""
        return len(self._starts) - 1

    @property
    def num_sequences(self) -> int:
        """Returns how many sequences one epoch holds."""
        return len(self._first_place) - 1

    @property
    def packing_efficiency(self) -> float:
        """Returns the share of places that hold a sample's token, in (0, 1]."""
        num_tokens = len(self._ids) - self.num_samples
        return num_tokens / (self.num_sequences * self._length)

    def __len__(self) -> int:
        """Returns how many sequences all epochs hold."""
        return self._num_epochs * self.num_sequences

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Returns one sequence: see `training.batches.TokenDataset`; its mask is (1, S, S)."""
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        tokens_S = np.full(self._length, self._pad_id, np.int64)
        labels_S = tokens_S.copy()
        loss_mask_S = np.zeros(self._length, np.float32)
        position_ids_S = np.zeros(self._length, np.int64)
        # Padding is on its own, token by token: a softmax over nothing would be NaN.
        segment_S = -1 - np.arange(self._length)
        end = 0
        for number, sample in enumerate(self._packed(index)):
            here = slice(self._starts[sample], self._starts[sample + 1])
            ids, is_answer = self._ids[here], self._is_answer[here]
            start, end = end, end + len(ids) - 1
            tokens_S[start:end] = ids[:-1]
            labels_S[start:end] = ids[1:]
            loss_mask_S[start:end] = is_answer[1:]
            position_ids_S[start:end] = np.arange(end - start)
            segment_S[start:end] = number
        return {
            "tokens": torch.from_numpy(tokens_S),
            "labels": torch.from_numpy(labels_S),
            "loss_mask": torch.from_numpy(loss_mask_S),
            "position_ids": torch.from_numpy(position_ids_S),
            "attention_mask": _hidden(torch.from_numpy(segment_S)),
        }

    def _packed(self, index: int) -> Iterator[int]:
        """Yields the samples of one sequence."""
        epoch, place = divmod(index, self.num_sequences)
        self._order(epoch)
        sequence = self._sequences[place]
        first, end = self._first_place[sequence : sequence + 2]
        for rank in self._places[first:end]:
            yield int(self._samples[rank])

    def _order(self, epoch: int) -> None:
        """Puts samples of equal length, and then the sequences, into the order of an epoch."""
        if epoch == self._epoch:
            return
        random = np.random.default_rng([self._seed, epoch])
        self._samples = np.lexsort((random.random(self.num_samples), -np.diff(self._starts)))
        self._sequences = random.permutation(self.num_sequences)
        self._epoch = epoch


def _hidden(segment_S: Tensor) -> Tensor:
    """Returns Megatron's mask, (1, S, S), True = hidden: other segments, and what comes later."""
    is_other = segment_S[:, None] != segment_S[None, :]
    return (is_other | torch.ones_like(is_other).triu(1))[None]
