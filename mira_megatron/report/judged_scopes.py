"""Where each ranking of an arm was cut, and what cut it, as the certificate says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mira_megatron.retention.arms import NULLS_SHARE
from mira_megatron.retention.documents import scope_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """Where one ranking was cut, as the certificate says it."""

    name: str  # for people, as in "group text-code"; of sources that are not ranked, how they are
    budget_tokens: int
    num_candidates: int
    candidate_tokens: int
    num_kept: int
    tokens_kept: int
    cutoff: float | None  # score of the last document kept by rank, or else of the last reserved
    first_out: str | None  # record id
    sources: tuple[str, ...]
    num_repeated: int = 0  # documents kept that are seen more than once
    is_cut_by_floors: bool = False  # floors reserve all that is kept: the cutoff is no threshold


def read_scopes(certificate: Mapping[str, Any]) -> dict[str, Scope]:
    """Returns the scopes of a certificate by its own names for them."""
    kind = certificate["scope"]
    scopes = {}
    for key, cut in certificate["scopes"].items():
        sources = tuple(
            source
            for source, decided in certificate["sources"].items()
            if decided["how"] == "ranked" and _scope_key(certificate, source) == key
        )
        scopes[key] = Scope(
            name="all sources" if kind == "global" else f"{kind} {key}",
            sources=sources,
            is_cut_by_floors=_is_cut_by_floors(certificate, sources, cut["num_kept"]),
            **cut,
        )
    return scopes


def scope_of(certificate: Mapping[str, Any], scopes: Mapping[str, Scope], source: str) -> Scope:
    """Returns the scope of a source; of one that is not ranked, one of its own without a cutoff."""
    decided = certificate["sources"][source]
    if decided["how"] == "ranked":
        return scopes[_scope_key(certificate, source)]
    return Scope(
        name=decided["how"].replace("_", " "),
        budget_tokens=decided["tokens_kept"],
        num_candidates=decided["num_kept"],
        candidate_tokens=decided["tokens_distinct"],
        num_kept=decided["num_kept"],
        tokens_kept=decided["tokens_kept"],
        cutoff=None,
        first_out=None,
        sources=(source,),
    )


def _is_cut_by_floors(
    certificate: Mapping[str, Any], sources: Sequence[str], num_kept: int
) -> bool:
    """Whether floors reserved documents of a scope and its ranking kept none beside them."""
    decided = [certificate["sources"][source] for source in sources]
    num_reserved = sum(each.get("num_reserved", 0) for each in decided)
    if certificate.get("nulls") == NULLS_SHARE:  # those are kept beside the ranking
        num_kept -= sum(each["num_without_score_kept"] for each in decided)
    return bool(num_reserved) and num_kept == num_reserved


def _scope_key(certificate: Mapping[str, Any], source: str) -> str:
    return scope_name(
        certificate["scope"],
        source=source,
        source_group=certificate["sources"][source]["source_group"],
    )
