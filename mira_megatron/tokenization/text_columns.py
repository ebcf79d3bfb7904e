"""Columns of texts as the bytes they are: checked, hashed and searched without a copy.

Shape letters: D texts, B bytes of UTF-8.
"""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

_HASH_BYTES = 16


class TextError(ValueError):
    """What is wrong with one of many texts; whoever knows its record says which it is."""

    def __init__(self, text: int, problem: str) -> None:
        super().__init__(f"text {text}: {problem}")
        self.text = text
        self.problem = problem


def utf8_of(texts: pa.LargeStringArray) -> npt.NDArray[np.uint8]:
    """Returns the UTF-8 of all texts, one after another, shape (B,), where it lies."""
    _, offsets, content = texts.buffers()
    if content is None or not len(texts):
        return np.zeros(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int64)
    return np.frombuffer(content, np.uint8)[
        bounds[texts.offset] : bounds[texts.offset + len(texts)]
    ]


def starts_of(texts: pa.LargeStringArray) -> npt.NDArray[np.int64]:
    """Returns where each text begins in `utf8_of`, and where the last one ends, shape (D + 1,)."""
    if not len(texts):
        return np.zeros(1, np.int64)
    bounds = np.frombuffer(texts.buffers()[1], np.int64)
    starts: npt.NDArray[np.int64] = bounds[texts.offset : texts.offset + len(texts) + 1]
    from_zero: npt.NDArray[np.int64] = starts - starts[0]
    return from_zero


def check_texts(texts: pa.LargeStringArray) -> None:
    """Raises TextError for the first text that is null or no UTF-8 (a lone surrogate is none)."""
    if texts.null_count:
        raise TextError(texts.is_null().index(True).as_py(), "null, expected a text")
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        for number, text in enumerate(texts):
            try:
                text.as_py()
            except UnicodeDecodeError as error:
                problem = f"not UTF-8: {error.reason} (byte {error.start})"
                raise TextError(number, problem) from error
        raise


def text_hashes(texts: pa.LargeStringArray) -> pa.FixedSizeBinaryArray:
    """Returns xxh3_128 of the UTF-8 of every text, 16 bytes each."""
    utf8 = utf8_of(texts).data
    digest = xxhash.xxh3_128_digest
    hashes = b"".join([digest(utf8[start:end]) for start, end in pairwise(starts_of(texts))])
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(_HASH_BYTES), len(texts), [None, pa.py_buffer(hashes)]
    )


def count_matches(pattern: re.Pattern[bytes], texts: pa.LargeStringArray) -> int:
    """Returns how often `pattern` occurs in the texts, each searched by itself."""
    starts = starts_of(texts)
    utf8 = utf8_of(texts).data
    spans = [match.span() for match in pattern.finditer(utf8)]
    places_M2 = np.array(spans, np.int64).reshape(-1, 2)
    ends_M = starts[np.searchsorted(starts, places_M2[:, 0], side="right")]
    if (places_M2[:, 1] <= ends_M).all():
        return len(spans)
    # A match that reaches over a seam is none, and may hide one that begins inside it.
    alone = (utf8[start:end] for start, end in pairwise(starts.tolist()))
    return sum(1 for text in alone for _ in pattern.finditer(text))
