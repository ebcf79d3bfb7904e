"""How often each group of characters occurs in a text, whatever its language.

Groups of 2, 3 and 4 characters are counted inside words, with the blanks beside a word as its first
and last character. So English stems, `_private` names, operators of code and pairs of Chinese
characters, which no blanks part, are all seen without knowing which language it is. Each group is
hashed to one of 65,536 buckets. All texts of a batch are counted at once, in arrays.

Shapes: N texts, C characters of a batch, B buckets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

NUM_BUCKETS = 1 << 16
_SIZES = (2, 3, 4)
_BATCH_CHARS = 1 << 20  # some 100 MB of arrays
_BLANK = ord(" ")
_NUMBER = re.compile(r"\d+")

# Odd multipliers with well spread bits; they decide no more than which groups share a bucket.
_MIX = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xC2B2AE3D27D4EB4F)


def batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yields the texts in order, as many at a time as are worth counting at once."""
    start = num_chars = 0
    for end, text in enumerate(texts, start=1):
        num_chars += len(text)
        if num_chars >= _BATCH_CHARS or end == len(texts):
            yield texts[start:end]
            start, num_chars = end, 0


def ngram_counts(texts: Sequence[str], *, fold_numbers: bool) -> csr_array:
    """Returns the counts as float32, shape (N, B); all numbers count as one if they are folded."""
    words = [_words(text, fold_numbers=fold_numbers) for text in texts]
    encoded = "".join(words).encode("utf-32-le", "surrogatepass")
    character_C = np.frombuffer(encoded, np.uint32)
    text_C = np.repeat(np.arange(len(words), dtype=np.int32), [len(text) for text in words])
    found = list(_ngrams(character_C, text_C))
    text_G = np.concatenate([text for text, _ in found])
    bucket_G = np.concatenate([bucket for _, bucket in found])
    ones_G = np.ones(len(text_G), np.float32)
    return coo_array((ones_G, (text_G, bucket_G)), shape=(len(texts), NUM_BUCKETS)).tocsr()


def _words(text: str, *, fold_numbers: bool) -> str:
    """Returns the words in small letters, one blank before and after each; "" without words."""
    words = " ".join(text.lower().split())
    if fold_numbers:
        words = _NUMBER.sub("0", words)
    return f" {words} " if words else ""


def _ngrams(
    character_C: NDArray[np.uint32], text_C: NDArray[np.int32]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Yields the text and the bucket of every group, one size of group at a time."""
    code_C = _mixed(character_C.astype(np.uint64) + np.uint64(1))
    is_blank_C = character_C == _BLANK
    hash_C, is_word_C = code_C, np.ones(len(code_C), dtype=bool)
    for size in range(2, max(_SIZES) + 1):
        # One character longer: what starts at i now ends at i + size - 1.
        hash_C = hash_C[:-1] * _STEP + code_C[size - 1 :]
        is_word_C = is_word_C[:-1]
        if size > 2:  # the character that is no longer at the end must not part two words
            is_word_C = is_word_C & ~is_blank_C[size - 2 : -1]
        if size in _SIZES:
            is_counted_C = is_word_C & (text_C[: len(hash_C)] == text_C[size - 1 :])
            bucket_G = _mixed(hash_C[is_counted_C]) % np.uint64(NUM_BUCKETS)
            yield text_C[: len(hash_C)][is_counted_C], bucket_G.astype(np.int32)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the values with every bit depending on all the higher ones, and then some."""
    values = (values ^ (values >> np.uint64(32))) * _MIX
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(29))
    return mixed
