"""Score every record as other methods do: `random`, `dsir`, `dataman`, `perplexity`.

Each entry of the section `baselines` is a score table of its name, beside those that `aggregate`
makes: an arm ranks by it in the same way, under the same budget, scope, ties and held-out set.

Reads   records/<source>/part-*.parquet, and what the method needs
Writes  record_scores/<baseline>/<source>/part-*.parquet (records.RECORD_SCORE_SCHEMA)
        baselines/<baseline>/…: what is found out before (see the method's own module)
Keeps   part names, ids and order of the input; one row per record, null with a reason where a
        method has no score for it
"""

from __future__ import annotations

from collections.abc import Mapping

from mira_megatron.baselines.dataman import dataman_units
from mira_megatron.baselines.dsir import DsirConfig, dsir_units
from mira_megatron.baselines.perplexity import perplexity_units
from mira_megatron.baselines.random_order import RandomConfig, random_units
from mira_megatron.config import Recipe, nearest, typed
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.grouping.source_groups import group_of_source
from mira_megatron.stage import Unit

METHODS = ("random", "dsir", "dataman", "perplexity")


def units(recipe: Recipe) -> list[Unit]:
    """Returns the units of every baseline, by name.

    Raises ValueError for a method that is none and for a name that another score table has.
    """
    sources = list(recipe_sources(recipe))
    found = []
    for name, entry in recipe.mapping("baselines").items():
        where = f"{recipe.path}: baselines.{name}"
        if not isinstance(entry, Mapping) or entry.get("method") not in METHODS:
            method = entry.get("method") if isinstance(entry, Mapping) else entry
            raise ValueError(
                f"{where}: method={method!r} must be one of {', '.join(METHODS)}."
                f"{nearest(str(method), METHODS)}"
            )
        _check_table(recipe, name, where)
        settings = {key: value for key, value in entry.items() if key != "method"}
        match entry["method"]:
            case "random":
                typed(RandomConfig, settings, where=where)
                found += random_units(name, sources, recipe.seed)
            case "dsir":
                config = typed(DsirConfig, settings, where=where)
                found += dsir_units(recipe, name, config, sources, where)
            case "dataman":
                found += dataman_units(recipe, name, settings, where)
            case _:
                found += perplexity_units(recipe, name, settings, group_of_source(recipe), where)
    return found


def _check_table(recipe: Recipe, name: str, where: str) -> None:
    """Raises ValueError where the baseline's scores would lie with others of the same name."""
    aggregated = (recipe.values.get("aggregate") or {}).get("scoring")
    if name == aggregated:
        raise ValueError(
            f"{where}: the section `aggregate` makes a score table of this name; rename one"
        )
