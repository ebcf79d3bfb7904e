"""The embedder that needs no model: characters in, TF-IDF, and its strongest directions.

What is fitted (how rare a bucket is, and the directions) is fitted on a seeded sample of the texts
given, in an order of its own. So a text's vector depends on which texts there are, but on neither
their order nor the number of threads: all sums are made on one.

Shapes: N texts, B buckets, D dimensions.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import xxhash
from scipy.sparse import csr_array, vstack
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits  # sklearn brings it

from mira_megatron.grouping.character_ngrams import NUM_BUCKETS, batches, ngram_counts
from mira_megatron.grouping.unit_vectors import Floats

_NUM_FITTED = 4096
_NUM_POWER_ITERATIONS = 3
_NEGLIGIBLE = 1e-5  # of the strongest direction's strength: what is below it is rounding


def embed_texts(texts: Sequence[str], *, dimensions: int, seed: int, fold_numbers: bool) -> Floats:
    """Returns one vector per text, shape (N, D), of any length; a text without words gets zeros."""
    fitted = heapq.nsmallest(_NUM_FITTED, texts, key=lambda text: _place(text, seed))
    with threadpool_limits(limits=1):
        counts = [ngram_counts(batch, fold_numbers=fold_numbers) for batch in batches(fitted)]
        counts_NB = vstack(counts, format="csr")
        rarity_B = _rarity(counts_NB)
        direction_BD = _directions(_weighed(counts_NB, rarity_B), dimensions, seed)
        vectors = [
            _weighed(ngram_counts(batch, fold_numbers=fold_numbers), rarity_B) @ direction_BD
            for batch in batches(texts)
        ]
    return np.concatenate(vectors)


def _place(text: str, seed: int) -> tuple[int, str]:
    encoded = f"{seed}:{text}".encode("utf-8", "surrogatepass")
    return xxhash.xxh3_64_intdigest(encoded), text


def _rarity(counts_NB: csr_array) -> Floats:
    """Returns the smoothed inverse document frequency of every bucket."""
    num_texts = counts_NB.shape[0]
    num_with_B = np.bincount(counts_NB.indices, minlength=NUM_BUCKETS)
    rarity_B: Floats = (np.log((1 + num_texts) / (1 + num_with_B)) + 1).astype(np.float32)
    return rarity_B


def _weighed(counts_NB: csr_array, rarity_B: Floats) -> csr_array:
    """Returns rows of length 1: logarithms of the counts times the rarity of their buckets."""
    weight_NB = counts_NB.copy()
    weight_NB.data = (1 + np.log(counts_NB.data)) * rarity_B[counts_NB.indices]
    squares_NB = weight_NB.multiply(weight_NB)
    length_N = np.sqrt(squares_NB.sum(axis=1))
    weight_NB.data /= np.repeat(length_N, np.diff(weight_NB.indptr))
    return weight_NB


def _directions(weight_NB: csr_array, dimensions: int, seed: int) -> Floats:
    """Returns the strongest directions as columns, zeros where there are fewer than asked for."""
    rank = min(dimensions, weight_NB.shape[0])
    _, strength_K, direction_KB = randomized_svd(
        weight_NB, rank, n_iter=_NUM_POWER_ITERATIONS, random_state=seed % 2**32
    )
    is_real_K = strength_K > _NEGLIGIBLE * strength_K[0]
    direction_BD = np.zeros((NUM_BUCKETS, dimensions), np.float32)
    direction_BD[:, :rank] = (direction_KB * is_real_K[:, np.newaxis]).T
    return direction_BD
