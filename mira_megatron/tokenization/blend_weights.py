"""Weights of a blend, for those who want them, and what they would repeat or leave out.

Megatron's weights are shares of the samples drawn (megatron-core 0.16.1, helpers.cpp,
build_blending_indices), not of documents; without weights it reads every prefix exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KEPT_TOKENS = "kept_tokens"
WEIGHTS = (KEPT_TOKENS,)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightedPrefix:
    """One training prefix of a blend."""

    source: str
    name: str
    num_tokens: int
    num_samples: int  # of one pass


def token_weights(prefixes: Sequence[WeightedPrefix]) -> list[float]:
    """Returns each prefix's share of the kept tokens; they sum to 1."""
    total = sum(prefix.num_tokens for prefix in prefixes)
    return [prefix.num_tokens / total for prefix in prefixes]


def source_weights(prefixes: Sequence[WeightedPrefix], weights: Mapping[str, float]) -> list[float]:
    """Returns the sources' weights, scaled to sum to 1, shared by tokens within a source.

    A weighted source of which nothing is trained on takes no share. Raises ValueError for a source
    without a weight.
    """
    present = {prefix.source for prefix in prefixes}
    missing = sorted(present - set(weights))
    if missing:
        raise ValueError(f"blend.source_weights names no weight for {', '.join(missing)}")
    total = sum(weights[source] for source in present)
    tokens = {
        source: sum(prefix.num_tokens for prefix in prefixes if prefix.source == source)
        for source in present
    }
    return [
        weights[prefix.source] / total * prefix.num_tokens / tokens[prefix.source]
        for prefix in prefixes
    ]


def weight_consequences(
    prefixes: Sequence[WeightedPrefix], weights: Sequence[float], num_samples: int
) -> list[str]:
    """Returns what `num_samples` drawn by weight repeat or leave out, one sentence per prefix.

    A prefix is drawn within one sample of its share, so what differs by less is not said.
    """
    said = []
    for prefix, weight in zip(prefixes, weights, strict=True):
        drawn = num_samples * weight
        difference = drawn - prefix.num_samples
        if abs(difference) < 1:
            continue
        what = "repeats" if difference > 0 else "leaves out"
        said.append(
            f"{prefix.name}: a weight of {weight:.4f} draws {round(drawn):,} of {num_samples:,} "
            f"samples, {drawn / prefix.num_samples:.2f} passes over its {prefix.num_samples:,}; "
            f"that {what} {abs(round(difference)):,} samples"
        )
    return said
