"""The sources a recipe names."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import orjson

from mira_megatron.config import Recipe
from mira_megatron.corpus.sources import SourceConfig, source_from_mapping


def recipe_sources(recipe: Recipe) -> dict[str, tuple[SourceConfig, Path]]:
    """Returns the recipe's sources by name: descriptor, and the folder its paths start from."""
    sources = {}
    for name, entry in recipe.mapping("sources").items():
        where = f"{recipe.path}: sources.{name}"
        settings = {key: value for key, value in entry.items() if key != "folder"}
        sources[name] = (
            _source(orjson.dumps(settings, option=orjson.OPT_NON_STR_KEYS), where),
            Path(entry["folder"]),
        )
    if not sources and not recipe.values.get("adopt"):
        raise ValueError(
            f"{recipe.path}: no sources. Name at least one under `sources:`, or under `adopt:` "
            "token datasets that exist already."
        )
    return sources


@cache
def _source(settings: bytes, where: str) -> SourceConfig:
    """Returns a typed descriptor; every stage asks for all of them, and typing takes 3 ms each."""
    return source_from_mapping(orjson.loads(settings), where)


def source_group(config: SourceConfig) -> str:
    """Returns the source group: the one pinned in the descriptor, or all of its family."""
    return config.group or config.family.replace("_", "-")
