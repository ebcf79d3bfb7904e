"""Which documents of a token dataset a hand-over lists, told by where their tokens lie.

An index view is followed by its byte pointers into the `.bin` that it shares with the dataset; the
mask that made it is not asked. A physical copy has places of its own: its lengths are compared one
by one, and its bytes are the manifest's to vouch for (verify_manifests.py).

Shape letters: S sequences of the dataset, V of the hand-over, D documents of the dataset.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mira_megatron.tokenization.index_file import SequenceIndex

Numbers = npt.NDArray[np.int64]


def viewed_sequences(view: SequenceIndex, whole: SequenceIndex) -> Numbers:
    """Returns, per sequence of the view, the dataset's sequence with these very tokens, shape (V,).

    -1 where none begins at this byte with this length. An empty sequence holds no tokens and is the
    dataset's any empty one, -2. Raises ValueError where the dataset lists a place twice: a place
    does not tell its document then.
    """
    filled = np.flatnonzero(whole.lengths_S > 0)
    places = whole.pointers_S[filled]
    if (np.diff(places) <= 0).any():
        filled = filled[np.argsort(places, kind="stable")]
        places = whole.pointers_S[filled]
        if (np.diff(places) == 0).any():
            raise ValueError(
                "the dataset lists the same tokens twice, so places do not tell documents apart"
            )
    numbers = np.full(len(view.lengths_S), -2, dtype=np.int64)
    asked = np.flatnonzero(view.lengths_S > 0)
    if not len(filled):
        numbers[asked] = -1
        return numbers
    found = np.minimum(np.searchsorted(places, view.pointers_S[asked]), len(places) - 1)
    candidates = filled[found]
    is_same = (places[found] == view.pointers_S[asked]) & (
        whole.lengths_S[candidates] == view.lengths_S[asked]
    )
    numbers[asked] = np.where(is_same, candidates, -1)
    return numbers


def copied_sequences(copy: SequenceIndex, whole: SequenceIndex, times_D: Numbers) -> Numbers:
    """Returns, per sequence of a physical copy, the dataset's sequence it is of, shape (V,).

    -1 where the length is another; all -1 where the copy holds another number of sequences.
    """
    numbers = expected_sequences(whole, times_D)
    if len(numbers) != len(copy.lengths_S):
        return np.full(len(copy.lengths_S), -1, dtype=np.int64)
    return np.where(copy.lengths_S == whole.lengths_S[numbers], numbers, -1)


def expected_sequences(whole: SequenceIndex, times_D: Numbers) -> Numbers:
    """Returns the sequences of a selection in the order of a hand-over.

    Those of a document stand together, the whole of it as often as it is selected.
    """
    num_sequences_D = np.diff(whole.document_indices_D)
    documents = np.repeat(np.arange(whole.num_documents), times_D)
    sizes = num_sequences_D[documents]
    starts = whole.document_indices_D[:-1][documents]
    before = np.cumsum(sizes) - sizes
    sequences: Numbers = np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))
    return sequences


def add_up(values_V: npt.NDArray[np.integer], sequence_V: Numbers, num_sequences: int) -> Numbers:
    """Returns values per sequence of the dataset, shape (S,); those that are nowhere are left."""
    sums = np.zeros(num_sequences, dtype=np.int64)
    is_found = sequence_V >= 0
    np.add.at(sums, sequence_V[is_found], values_V[is_found])
    return sums


def least_per_document(values_S: Numbers, index: SequenceIndex) -> Numbers:
    """Returns the least value over each document's sequences with tokens, shape (D,).

    0 for a document without tokens.
    """
    return _per_document(np.minimum, values_S, index)


def most_per_document(values_S: Numbers, index: SequenceIndex) -> Numbers:
    """Returns the greatest value over each document's sequences with tokens, shape (D,)."""
    return _per_document(np.maximum, values_S, index)


def _per_document(choose: np.ufunc, values_S: Numbers, index: SequenceIndex) -> Numbers:
    has_tokens = index.lengths_S > 0
    sizes_D = np.diff(index.document_indices_D)
    if (sizes_D == 1).all():
        return values_S * has_tokens
    documents = np.repeat(np.arange(index.num_documents), sizes_D)
    documents, values = documents[has_tokens], values_S[has_tokens]
    chosen = np.zeros(index.num_documents, dtype=np.int64)
    if len(documents):
        is_first = np.concatenate([[True], documents[1:] != documents[:-1]])
        chosen[documents[is_first]] = choose.reduceat(values, np.flatnonzero(is_first))
    return chosen
