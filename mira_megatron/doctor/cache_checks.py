"""Checks of caches: Bridge takes packed samples and line indices that exist as they are."""

from __future__ import annotations

from mira_megatron.doctor.facts import CacheFacts, TrainingFacts
from mira_megatron.doctor.finding import ERROR, Finding


def check_stale_caches(facts: TrainingFacts) -> list[Finding]:
    """Finds caches that were made of another text than lies beside them."""
    return [finding for cache in facts.caches for finding in _check(cache)]


def _check(cache: CacheFacts) -> list[Finding]:
    if cache.mtime < cache.source_mtime:
        return [_stale(cache, f"older than {cache.source}")]
    if cache.made_of is not None and cache.made_of != cache.source_digest:
        return [_stale(cache, f"of other content (digest {cache.made_of}) than {cache.source}")]
    return []


def _stale(cache: CacheFacts, how: str) -> Finding:
    return Finding(
        level=ERROR,
        what=f"a cache {how}: it would be trained on in its place",
        where=cache.path,
        way_out=f"delete {cache.path}",
    )
