"""The source groups of a recipe's rubric, as the `group` stage found them.

A rubric's groups are founded once per family, by the sources that were there, and then fixed: its
anchors are found in them and its scorers learn from them. A source that comes later joins one of
them; a new grouping is a new rubric. So the units of every later stage are known only when the
groups are.
A recipe without a `group` section groups by what its descriptors pin, or else by family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.corpus.recipe_sources import recipe_sources, source_group
from mira_megatron.manifest import (
    INTENT,
    MANIFEST,
    read_manifest,
    verify_digests,
    verify_parts,
)
from mira_megatron.records import FAMILIES

_RECORDS = layout.records("")


class NotYetKnown(ValueError):
    """Units that depend on source groups which are not there yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceGroup:
    """Sources that share one rubric and one scorer."""

    name: str
    family: str
    founders: tuple[str, ...]  # its anchors are found in their judgments
    members: tuple[str, ...]  # those of the recipe's sources that belong to it


def founders(recipe: Recipe, family: str) -> tuple[str, ...]:
    """Returns the sources that a family's groups rest on, sorted by name.

    Those it was founded with, or began to be, here or in a run that is to be reused; otherwise the
    recipe's `group.founders` among its sources, or all of them.
    """
    sources = _sources_of(recipe, family)
    folder = layout.groups(recipe.rubric, family)
    if (recipe.run_folder / folder / MANIFEST).exists():
        return _sources_read(recipe.run_folder / folder / MANIFEST)
    begun = [recipe.run_folder / folder / INTENT]
    begun += [run_folder / folder / MANIFEST for run_folder in recipe.reuse]
    for path in begun:
        if path.exists() and not _has_failed(path) and set(_sources_read(path)) <= set(sources):
            return _sources_read(path)
    wanted = (recipe.values.get("group") or {}).get("founders") or sources
    return tuple(name for name in sources if name in wanted) or sources


def families(recipe: Recipe) -> tuple[str, ...]:
    """Returns the families that have a source in the recipe, in the order of FAMILIES."""
    return tuple(family for family in FAMILIES if _sources_of(recipe, family))


def source_groups(recipe: Recipe) -> dict[str, SourceGroup]:
    """Returns the groups that have a source in this recipe, by name.

    Raises NotYetKnown, naming the command to run, where a source's group has not been found yet. A
    provisional recipe gets its pin or family instead: good enough to check a plan, not to run it.
    """
    configs = {name: config for name, (config, _) in recipe_sources(recipe).items()}
    founded = _founded(recipe)
    group_of = {name: group for group, entry in founded.items() for name in entry["sources"]}
    for source, config in configs.items():
        if source not in group_of:
            group_of[source] = _joined(recipe, source, founded) or source_group(config)
    return {
        group: SourceGroup(
            name=group,
            family=founded[group]["family"] if group in founded else configs[members[0]].family,
            founders=tuple(sorted(founded[group]["sources"])) if group in founded else members,
            members=members,
        )
        for group in sorted(set(group_of.values()))
        if (members := tuple(name for name in configs if group_of[name] == group))
    }


def group_of_source(recipe: Recipe) -> dict[str, str]:
    """Returns the group's name of every source of the recipe, sorted by source.

    Raises NotYetKnown as source_groups does.
    """
    groups = source_groups(recipe).values()
    return dict(sorted((source, group.name) for group in groups for source in group.members))


def _founded(recipe: Recipe) -> dict[str, Any]:
    """Returns the founded groups of all families by name; none where there is nothing to find."""
    founded: dict[str, Any] = {}
    for family in families(recipe) if "group" in recipe.values else ():
        folder = recipe.run_folder / layout.groups(recipe.rubric, family)
        if _is_finished(folder):
            founded.update(_read(folder / layout.SOURCE_GROUPS)["groups"])
        elif not recipe.is_provisional:
            raise NotYetKnown(
                f"{folder}: no source groups yet. Run `mira group {recipe.path}` first."
            )
    return founded


def _joined(recipe: Recipe, source: str, founded: Mapping[str, Any]) -> str | None:
    """Returns the founded group that a later source joined; None where that decides nothing."""
    if "group" not in recipe.values:
        return None
    folder = recipe.run_folder / layout.joined(recipe.rubric, source)
    if _is_finished(folder):
        group = str(_read(folder / layout.SOURCE_GROUP)["group"])
        if group in founded:
            return group
    if recipe.is_provisional:
        return None
    raise NotYetKnown(
        f"{folder}: source {source} has no group yet. Run `mira group {recipe.path}` first."
    )


def _is_finished(folder: Path) -> bool:
    """Whether a unit is finished; ValueError where what it wrote is gone or was altered."""
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    # No unit lists the groups among its inputs, so whoever reads them looks.
    verify_parts(folder, manifest)
    verify_digests(folder, manifest, but_for=(".parquet",))
    return True


def _sources_of(recipe: Recipe, family: str) -> tuple[str, ...]:
    sources = recipe_sources(recipe).items()
    return tuple(name for name, (config, _) in sources if config.family == family)


def _sources_read(path: Path) -> tuple[str, ...]:
    """Returns the sources whose records a manifest or an intent names as inputs."""
    inputs = _read(path)["inputs"]
    return tuple(sorted(name[len(_RECORDS) :] for name in inputs if name.startswith(_RECORDS)))


def _has_failed(path: Path) -> bool:
    """Whether what was begun ended with a message: nothing was founded, so anything may change."""
    return _read(path).get("failure") is not None


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads(path.read_bytes())
    return content
