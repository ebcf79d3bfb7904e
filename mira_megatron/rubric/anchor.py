"""Find a group's anchors in its founders' judgments, or take over those that the recipe gives.

Reads   judgments/<rubric>/<source>/part-*.parquet of the group's founders, or one given file
Writes  anchors/<rubric>/<group>/anchors.jsonl: the 15 slots; anchors.md: the same for people
        anchors/<rubric>/<group>/clusters.json: sizes, near duplicates, stability under resampling
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mira_megatron import layout
from mira_megatron.config import Recipe, fingerprinted
from mira_megatron.grouping.embedders import (
    EmbedderConfig,
    embedder_fingerprint,
    recipe_embedder,
)
from mira_megatron.grouping.source_groups import SourceGroup, source_groups
from mira_megatron.rubric.anchor_config import AnchorConfig
from mira_megatron.rubric.given_anchors import GivenAnchors, given_anchors, read_given
from mira_megatron.shards import file_digest
from mira_megatron.stage import Unit

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorSettings:
    """What finding one group's anchors needs to know."""

    group: str
    family: str
    founders: tuple[str, ...]  # sources
    rubric_name: str  # that the version starts with
    seed: int
    config: AnchorConfig
    embedder: EmbedderConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenSettings:
    """What taking over one group's anchors needs to know."""

    group: str
    family: str
    rubric_name: str
    given: GivenAnchors


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source group; without a section `anchor` only those of given anchors."""
    if not {"anchor", "scorers"} & set(recipe.values):
        return []
    made = []
    for group in source_groups(recipe).values():
        given = given_anchors(recipe, group.name)
        if given is not None:
            made.append(_given_unit(recipe, group, given))
        elif "anchor" in recipe.values:
            made.append(_found_unit(recipe, group))
    return made


def _found_unit(recipe: Recipe, group: SourceGroup) -> Unit:
    config = recipe.section("anchor", AnchorConfig)
    embedder = recipe_embedder(recipe)
    judgments = tuple(layout.judgments(recipe.rubric, source) for source in group.founders)
    return Unit(
        stage="anchor",
        name=group.name,
        folder=layout.anchors(recipe.rubric, group.name),
        version=VERSION,
        config=_unit_config(recipe, group),
        upstream=judgments,
        outlives=judgments,  # labels were paid for on these anchors, and scorers trained
        raw_inputs={f"founder {source}": group.family for source in group.founders},
        work="mira_megatron.rubric.anchor_work:find",
        settings=AnchorSettings(
            group=group.name,
            family=group.family,
            founders=group.founders,
            rubric_name=_rubric_name(recipe, group),
            seed=recipe.seed,
            config=config,
            embedder=embedder,
        ),
    )


def _given_unit(recipe: Recipe, group: SourceGroup, given: GivenAnchors) -> Unit:
    return Unit(
        stage="anchor",
        name=group.name,
        folder=layout.anchors(recipe.rubric, group.name),
        version=VERSION,
        config=_unit_config(recipe, group),
        # Inputs, not settings: given anchors take the place of found ones, which are set aside.
        raw_inputs={f"anchor field {ours}": theirs for ours, theirs in given.fields.items()},
        raw_files=lambda: _given_digest(recipe, group, given),
        work="mira_megatron.rubric.anchor_work:adopt",
        settings=GivenSettings(
            group=group.name,
            family=group.family,
            rubric_name=_rubric_name(recipe, group),
            given=given,
        ),
    )


def _given_digest(recipe: Recipe, group: SourceGroup, given: GivenAnchors) -> dict[str, str]:
    """Returns the digest of given anchors; ValueError, before anything is set aside for them."""
    read_given(given, name=_rubric_name(recipe, group), family=group.family)
    return {"anchors file": file_digest(given.path)}


def _unit_config(recipe: Recipe, group: SourceGroup) -> dict[str, Any]:
    """Returns what decides a group's anchors, were they to be found."""
    if "anchor" not in recipe.values:
        return {"family": group.family}
    return {
        "family": group.family,
        "seed": recipe.seed,
        **fingerprinted(recipe.section("anchor", AnchorConfig)),
        "embedder": embedder_fingerprint(recipe_embedder(recipe)),
    }


def _rubric_name(recipe: Recipe, group: SourceGroup) -> str:
    return f"{recipe.rubric}-{group.name}"
