"""Hashed unigram and bigram counts, equal to those of DSIR's own package, several times as fast.

The features of DSIR (Xie et al. 2023, arXiv 2302.03169) as its package `data-selection` 1.0.3 has
them: lower-cased text cut by NLTK's WordPunct rule; every word, and every two neighbours joined by
a space, counted in the bucket that is its SHA-256 modulo the number of buckets. What is faster:
words become numbers, the pairs of many texts are told apart at once, and each distinct word or pair
is hashed once.

Shape letters: W words of a text, P pairs of all texts of a batch, B buckets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# NLTK's WordPunctTokenizer as its releases before 3.10 match it, and Python's re does; 3.10 changed
# the engine, to which combining marks are letters.
_WORDS = re.compile(r"\w+|[^\w\s]+")
_BATCH_CHARS = 1 << 21  # fewer make distinct pairs repeat between batches, more cost memory
_PIECE_CHARS = 1 << 20
_MOST_REMEMBERED = 4_000_000  # distinct words and pairs: some 600 MB; then it starts anew
_HALF = 32
_LOW = (1 << _HALF) - 1


class HashedGrams:
    """Counts of hashed n-grams, n = 1 and 2; remembers the buckets of what it has met."""

    def __init__(self, num_buckets: int) -> None:
        self.num_buckets = num_buckets
        self._words = _Words(num_buckets)
        self._pairs: dict[int, int] = {}

    def counts(self, texts: Iterable[str]) -> Iterator[npt.NDArray[np.int64]]:
        """Yields int64 counts (B,) of every text, in order; bags of neighbouring words only."""
        yield from self._counts(map(self._numbers, texts))

    def counts_of_words(self, texts: Iterable[Sequence[str]]) -> Iterator[npt.NDArray[np.int64]]:
        """Yields int64 counts (B,) of every text that is cut into words already."""
        yield from self._counts(self._words.numbers(words) for words in texts)

    def _numbers(self, text: str) -> npt.NDArray[np.int64]:
        """Returns the words of a text as numbers; of a long one piece by piece, to save memory."""
        pieces = [self._words.numbers(words_of(piece)) for piece in _pieces(text)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _counts(self, texts: Iterable[npt.NDArray[np.int64]]) -> Iterator[npt.NDArray[np.int64]]:
        batch: list[npt.NDArray[np.int64]] = []
        num_words = 0
        for words in texts:
            batch.append(words)
            num_words += len(words)
            if num_words * 4 >= _BATCH_CHARS:
                yield from self._batch_counts(batch)
                batch, num_words = [], 0
        yield from self._batch_counts(batch)

    def _batch_counts(
        self, batch: Sequence[npt.NDArray[np.int64]]
    ) -> Iterator[npt.NDArray[np.int64]]:
        if not batch:
            return
        buckets_of_words = self._words.buckets()
        buckets_P = self._buckets_of_pairs(batch)
        start = 0
        for words_W in batch:
            end = start + max(len(words_W) - 1, 0)
            counts = np.bincount(buckets_of_words[words_W], minlength=self.num_buckets)
            counts += np.bincount(buckets_P[start:end], minlength=self.num_buckets)
            yield counts
            start = end
        if len(self._words) + len(self._pairs) > _MOST_REMEMBERED:
            self._words, self._pairs = _Words(self.num_buckets), {}

    def _buckets_of_pairs(self, batch: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        pairs_P = np.concatenate([(words_W[:-1] << _HALF) | words_W[1:] for words_W in batch])
        encoded = pa.array(pairs_P).dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        buckets: list[int | None] = list(map(self._pairs.get, distinct))
        names = self._words.names
        for place, bucket in enumerate(buckets):
            if bucket is None:
                pair = distinct[place]
                gram = f"{names[pair >> _HALF]} {names[pair & _LOW]}"
                buckets[place] = self._pairs[pair] = bucket_of(gram, self.num_buckets)
        buckets_P: npt.NDArray[np.int64] = np.array(buckets, np.int64)[encoded.indices.to_numpy()]
        return buckets_P


class _Words(dict[str, int]):
    """Numbers of words, with what they stand for; a word that is new gets the next one."""

    def __init__(self, num_buckets: int) -> None:
        super().__init__()
        self.names: list[str] = []
        self._buckets: list[int] = []
        self._num_buckets = num_buckets

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self.names)
        self.names.append(word)
        self._buckets.append(bucket_of(word, self._num_buckets))
        return number

    def numbers(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        return np.fromiter(map(self.__getitem__, words), np.int64, len(words))

    def buckets(self) -> npt.NDArray[np.int64]:
        return np.array(self._buckets, np.int64)


def words_of(text: str) -> list[str]:
    """Returns the words and runs of punctuation of a text, lower-cased."""
    return _WORDS.findall(text.lower())


def _pieces(text: str) -> Iterator[str]:
    """Yields a text cut at blanks, which no word holds and no letter's lower case looks across."""
    start = 0
    while len(text) - start > _PIECE_CHARS:
        end = max(text.rfind(blank, start, start + _PIECE_CHARS) for blank in " \n")
        if end <= start:  # one long word
            break
        yield text[start:end]
        start = end
    yield text[start:] if start else text


def num_words(counts: npt.NDArray[np.int64]) -> int:
    """Returns the words of a text from its counts: words and pairs are 2W - 1, as in DSIR."""
    return (int(counts.sum()) + 1) // 2


def bucket_of(gram: str, num_buckets: int) -> int:
    """Returns the bucket of a word or pair."""
    digest = sha256(gram.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest, "big") % num_buckets
