"""What is looked for, as sorted hashes: the n-grams of every surface, and phrases of any length.

An n-gram that stands in more than `max_items` items is boilerplate (an import header, a preamble)
and is not looked for; nor is one with fewer than `MIN_LETTERED` words, which is a list of numbers
or closing brackets. The others weigh log(1 + items / items that have it): what many items share
says less about any one. Items of one cluster (translations of a task) count once. Test and train
splits are weighed apart, so that looking for both changes no score.

Legend: G distinct n-grams, E pairs of n-gram and surface, S surfaces, P phrases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mira_megatron.eval.contamination.arrays import F64, I64, U64, Bools
from mira_megatron.eval.contamination.code_shapes import Shape, shape_ngrams, skeletons, text_shape
from mira_megatron.eval.contamination.code_tokens import ngrams, running_sums, text_tokens
from mira_megatron.eval.contamination.items import TextForm
from mira_megatron.eval.contamination.postings import Postings

NGRAM_TOKENS = {TextForm.CODE: 10, TextForm.SQL: 8, TextForm.PROSE: 13, TextForm.SHAPE: 20}
MIN_LETTERED = 3
# Distinct ones. A surface with fewer is an idiom that anybody writes: `while b: a, b = b, a % b`, a
# solution of HumanEval, has five and stands in many modules. Those of shapes are longer.
MIN_NGRAMS = {TextForm.CODE: 10, TextForm.SQL: 10, TextForm.PROSE: 10, TextForm.SHAPE: 5}
_MAX_BITMAP_BITS = 26  # 64 MiB


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceText:
    """A text to be found, with what decides the weights of its n-grams."""

    surface: int
    text: str
    split: str
    cluster: str


@dataclass(frozen=True, slots=True)
class HashSet:
    """Sorted hashes, with a bitmap of their upper bits that most others are not in."""

    sorted_G: U64
    bitmap: Bools

    @classmethod
    def of(cls, sorted_G: U64) -> HashSet:
        """Returns the set of hashes that are sorted and distinct."""
        num_bits = min(_MAX_BITMAP_BITS, max(10, len(sorted_G).bit_length() + 5))
        bitmap = np.zeros(1 << num_bits, dtype=np.bool_)
        bitmap[sorted_G >> np.uint64(64 - num_bits)] = True
        return cls(sorted_G, bitmap)

    def found(self, hashes: U64) -> tuple[I64, I64]:
        """Returns which of the hashes are in the set, and the place of each in it."""
        if not len(self.sorted_G):
            nothing = np.zeros(0, dtype=np.int64)
            return nothing, nothing
        num_bits = len(self.bitmap).bit_length() - 1
        upper = (hashes >> np.uint64(64 - num_bits)).view(np.int64)
        rows = np.flatnonzero(self.bitmap[upper])
        places = np.searchsorted(self.sorted_G, hashes[rows])
        places[places == len(self.sorted_G)] = 0
        is_in = self.sorted_G[places] == hashes[rows]
        return rows[is_in], places[is_in]


@dataclass(frozen=True, slots=True)
class NgramIndex:
    """The n-grams of all surfaces of one form; the place of an n-gram in `hashes` is its key."""

    num_tokens: int
    hashes: HashSet
    skeletons: HashSet  # of shapes: what is compared closer; else empty
    postings: Postings


def surface_ngrams(text: str, form: TextForm) -> U64:
    """Returns the distinct n-grams of a text that are worth looking for, sorted."""
    num_tokens = NGRAM_TOKENS[form]
    if form is TextForm.SHAPE:
        shape = text_shape(text)
        hashes = shape_ngrams(shape, num_tokens, _telling_shapes(shape))
        return np.unique(hashes)
    tokens = text_tokens(text)
    if form is TextForm.PROSE:
        tokens = tokens.words()
    hashes = ngrams(running_sums(tokens.hash_T), num_tokens)
    return np.unique(hashes[_telling(tokens.has_letter_T, num_tokens)])


def _telling(is_lettered_T: Bools, num_tokens: int) -> I64:
    """Returns the places from which on enough of `num_tokens` tokens are words with letters."""
    lettered = np.zeros(len(is_lettered_T) + 1, dtype=np.int64)
    np.cumsum(is_lettered_T, out=lettered[1:])
    num_places = max(0, len(is_lettered_T) - num_tokens + 1)
    counts = lettered[num_tokens : num_tokens + num_places] - lettered[:num_places]
    return np.flatnonzero(counts >= MIN_LETTERED)


def _telling_shapes(shape: Shape) -> I64:
    is_lettered_T = shape.tokens.has_letter_T & ~shape.is_variable_T
    return _telling(is_lettered_T, NGRAM_TOKENS[TextForm.SHAPE])


def build_index(
    texts: Sequence[SurfaceText], form: TextForm, num_surfaces: int, max_items: int
) -> NgramIndex:
    """Returns the index over the texts of one form; too short surfaces have a total of 0."""
    grams = [surface_ngrams(text.text, form) for text in texts]
    clusters: dict[str, dict[str, int]] = defaultdict(dict)
    for text in texts:
        clusters[text.split].setdefault(text.cluster, len(clusters[text.split]))
    weight_of = {
        split: _weights(
            [grams[row] for row, text in enumerate(texts) if text.split == split],
            [numbers[text.cluster] for text in texts if text.split == split],
            max_items,
        )
        for split, numbers in clusters.items()
    }
    kept: list[tuple[U64, F64, int]] = []
    total_S = np.zeros(num_surfaces, dtype=np.float64)
    for text, hashes in zip(texts, grams, strict=True):
        known, weights = weight_of[text.split]
        weight_G = weights[np.searchsorted(known, hashes)]
        hashes, weight_G = hashes[weight_G > 0], weight_G[weight_G > 0]
        if len(hashes) >= MIN_NGRAMS[form]:
            kept.append((hashes, weight_G, text.surface))
            total_S[text.surface] = weight_G.sum()
    all_E = np.concatenate([np.zeros(0, dtype=np.uint64), *(each[0] for each in kept)])
    weight_E = np.concatenate([np.zeros(0), *(each[1] for each in kept)])
    surface_E = np.repeat(
        np.array([each[2] for each in kept], dtype=np.int64), [len(each[0]) for each in kept]
    )
    order = np.lexsort((surface_E, all_E))
    sorted_G, first_G = np.unique(all_E[order], return_index=True)
    return NgramIndex(
        NGRAM_TOKENS[form],
        HashSet.of(sorted_G),
        HashSet.of(_known_skeletons(texts) if form is TextForm.SHAPE else sorted_G[:0]),
        Postings(
            np.append(first_G, len(all_E)).astype(np.int64),
            surface_E[order],
            weight_E[order],
            total_S,
        ),
    )


def _known_skeletons(texts: Sequence[SurfaceText]) -> U64:
    num_tokens = NGRAM_TOKENS[TextForm.SHAPE]
    found = [np.zeros(0, dtype=np.uint64)]
    for text in texts:
        shape = text_shape(text.text)
        found.append(skeletons(shape, num_tokens)[_telling_shapes(shape)])
    return np.unique(np.concatenate(found))


def _weights(grams: Sequence[U64], cluster_of: Sequence[int], max_items: int) -> tuple[U64, F64]:
    """Returns every n-gram of a split with its weight; 0 where too many items have it."""
    hash_E = np.concatenate(grams)
    cluster_E = np.repeat(np.array(cluster_of, dtype=np.int64), [len(each) for each in grams])
    order = np.lexsort((cluster_E, hash_E))
    hash_E, cluster_E = hash_E[order], cluster_E[order]
    is_other = np.ones(len(hash_E), dtype=np.bool_)
    is_other[1:] = (hash_E[1:] != hash_E[:-1]) | (cluster_E[1:] != cluster_E[:-1])
    known, num_items = np.unique(hash_E[is_other], return_counts=True)
    weights = np.log1p(len(set(cluster_of)) / num_items)
    weights[num_items > max_items] = 0.0
    return known, weights


@dataclass(frozen=True, slots=True)
class PhraseIndex:
    """Exact sequences of tokens, of any length, found by their last token."""

    last: HashSet
    by_length: dict[int, tuple[U64, I64]]  # sorted hashes, and the key of each
    postings: Postings


def build_phrases(
    surfaces_of: Mapping[str, Sequence[int]], num_surfaces: int, is_share: Sequence[bool]
) -> PhraseIndex:
    """Returns the index of phrases, each with its surfaces.

    The score of a surface is 1 where one of its phrases is found, or with `is_share` the share of
    them that is. A phrase without a token is left out.
    """
    hashes: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    lasts = set()
    for phrase, surfaces in surfaces_of.items():
        tokens = text_tokens(phrase)
        if len(tokens):
            (whole,) = ngrams(running_sums(tokens.hash_T), len(tokens))
            hashes[len(tokens)][int(whole)].update(surfaces)
            lasts.add(int(tokens.hash_T[-1]))
    by_length, found = {}, list[list[int]]()
    for length, phrases in sorted(hashes.items()):
        ordered = sorted(phrases)
        keys = np.arange(len(found), len(found) + len(ordered), dtype=np.int64)
        by_length[length] = (np.array(ordered, dtype=np.uint64), keys)
        found += [sorted(phrases[each]) for each in ordered]
    surface_E = np.array([each for surfaces in found for each in surfaces], dtype=np.int64)
    counts = np.bincount(surface_E, minlength=num_surfaces)
    total_S = np.where(is_share, counts, counts > 0).astype(np.float64)
    ends = np.cumsum([0, *map(len, found)]).astype(np.int64)
    postings = Postings(ends, surface_E, np.ones(len(surface_E)), total_S)
    return PhraseIndex(HashSet.of(np.array(sorted(lasts), dtype=np.uint64)), by_length, postings)
