"""Where documents that lie one behind the other have what is looked for.

They are looked through in windows of a quarter of a megabyte, whatever the length of each, and a
window of a longer document begins a little before the last one ended. So memory is bounded, and
a match is missed only where its tokens span more than that overlap.

Legend: B bytes, T tokens, D documents, M matches, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mira_megatron.eval.contamination.arrays import I64, U8, U64
from mira_megatron.eval.contamination.code_shapes import Shape, shape_ngrams, shape_of, skeletons
from mira_megatron.eval.contamination.code_tokens import (
    Tokens,
    ngrams,
    ngrams_at,
    running_sums,
    tokens_of,
)
from mira_megatron.eval.contamination.items import TextForm
from mira_megatron.eval.contamination.needles import Needles
from mira_megatron.eval.contamination.ngram_index import NgramIndex, PhraseIndex
from mira_megatron.eval.contamination.postings import Matches, gathered

WINDOW_BYTES = 1 << 18
OVERLAP_BYTES = 1 << 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Some whole documents, or a part of one: bytes from `start` to before `end`."""

    start: int
    end: int
    is_cut_before: bool = False
    is_cut_behind: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """All matches in a batch of documents."""

    ngrams: dict[TextForm, Matches]
    phrases: Matches
    query_starts: I64  # where the word `select` or `with` stands


def windows(offset_D1: I64, window_bytes: int, overlap_bytes: int) -> Iterator[Window]:
    """Yields windows over documents that begin at D + 1 offsets, the last one the end of all."""
    first, num_documents = 0, len(offset_D1) - 1
    while first < num_documents:
        start = int(offset_D1[first])
        behind = int(np.searchsorted(offset_D1, start + window_bytes, side="right")) - 1
        if behind > first:
            yield Window(start=start, end=int(offset_D1[behind]))
            first = behind
            continue
        yield from _cut(start, int(offset_D1[first + 1]), window_bytes, overlap_bytes)
        first += 1


def _cut(start: int, end: int, window_bytes: int, overlap_bytes: int) -> Iterator[Window]:
    at = start
    while at + window_bytes < end:
        stop = at + window_bytes
        yield Window(start=at, end=stop, is_cut_before=at > start, is_cut_behind=True)
        at = stop - overlap_bytes
    yield Window(start=at, end=end, is_cut_before=at > start)


def find(
    content_B: U8,
    offset_D1: I64,
    needles: Needles,
    *,
    window_bytes: int = WINDOW_BYTES,
    overlap_bytes: int = OVERLAP_BYTES,
) -> Found:
    """Returns where the documents have what is looked for, by their places in `content_B`."""
    by_form: dict[TextForm, list[Matches]] = {form: [] for form in needles.ngrams}
    phrases: list[Matches] = []
    query_starts = [np.zeros(0, dtype=np.int64)]
    query_words = needles.query_words
    for window in windows(offset_D1, window_bytes, overlap_bytes):
        tokens = window_tokens(content_B, offset_D1, window)
        sums = running_sums(tokens.hash_T)
        for form, index in needles.ngrams.items():
            match form:
                case TextForm.PROSE:
                    words = tokens.words()
                    found = _ngrams(words, running_sums(words.hash_T), index, window.start)
                case TextForm.SHAPE:
                    shape = window_shape(content_B, offset_D1, window, tokens)
                    found = _shapes(shape, index, window.start)
                case _:
                    found = _ngrams(tokens, sums, index, window.start)
            by_form[form].append(found)
        phrases += _phrases(tokens, sums, needles.phrases, window.start)
        if len(query_words):
            begins = tokens.start_T[np.isin(tokens.hash_T, query_words)]
            query_starts.append(begins + window.start)
    return Found(
        ngrams={form: gathered(parts) for form, parts in by_form.items()},
        phrases=gathered(phrases),
        query_starts=np.unique(np.concatenate(query_starts)),
    )


def window_tokens(content_B: U8, offset_D1: I64, window: Window) -> Tokens:
    """Returns the whole tokens of a window, by their places in it."""
    starts = _document_starts(offset_D1, window)
    tokens = tokens_of(content_B[window.start : window.end], starts)
    if not (window.is_cut_before or window.is_cut_behind):
        return tokens
    behind = max(0, len(tokens) - int(window.is_cut_behind))
    return tokens.taken(slice(int(window.is_cut_before), behind))


def window_shape(content_B: U8, offset_D1: I64, window: Window, tokens: Tokens) -> Shape:
    """Returns the shape of a window's tokens."""
    starts = _document_starts(offset_D1, window)
    return shape_of(content_B[window.start : window.end], tokens, starts)


def _document_starts(offset_D1: I64, window: Window) -> I64:
    first, last = np.searchsorted(offset_D1, [window.start, window.end])
    return offset_D1[first:last] - window.start


def _shapes(shape: Shape, index: NgramIndex, start: int) -> Matches:
    row_C, _ = index.skeletons.found(skeletons(shape, index.num_tokens))
    place_M, key_M = index.hashes.found(shape_ngrams(shape, index.num_tokens, row_C))
    row_M, tokens = row_C[place_M], shape.tokens
    last_M = row_M + index.num_tokens - 1
    return Matches(key_M, tokens.start_T[row_M] + start, tokens.end_T[last_M] + start)


def _ngrams(tokens: Tokens, sums: U64, index: NgramIndex, start: int) -> Matches:
    row_M, key_M = index.hashes.found(ngrams(sums, index.num_tokens))
    last_M = row_M + index.num_tokens - 1
    return Matches(key_M, tokens.start_T[row_M] + start, tokens.end_T[last_M] + start)


def _phrases(tokens: Tokens, sums: U64, index: PhraseIndex, start: int) -> Iterator[Matches]:
    last_C, _ = index.last.found(tokens.hash_T)
    if not len(last_C):
        return
    for length, (hashes, keys) in index.by_length.items():
        row_C = last_C[last_C >= length - 1] - (length - 1)
        hash_C = ngrams_at(sums, length, row_C)
        place_C = np.minimum(np.searchsorted(hashes, hash_C), len(hashes) - 1)
        is_in = hashes[place_C] == hash_C
        row_M = row_C[is_in]
        yield Matches(
            keys[place_C[is_in]],
            tokens.start_T[row_M] + start,
            tokens.end_T[row_M + length - 1] + start,
        )
