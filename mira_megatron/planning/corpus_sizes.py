"""How large a recipe's corpus is: counted where stages have counted it, else as it is declared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.manifest import Manifest, read_manifest
from mira_megatron.planning.plan_config import PlanConfig
from mira_megatron.tokenization.adopted import adopted_sources


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusSizes:
    """None where a size is not known."""

    num_sources: int  # of records; adopted datasets have none
    num_records: float | None
    num_tokens: float | None  # of all datasets, adopted ones included
    tokens_per_record: float | None
    held_out_tokens: float | None  # at most, where they are not counted yet


def corpus_sizes(recipe: Recipe, config: PlanConfig) -> CorpusSizes:
    """Returns the sizes of all sources together."""
    sources = list(recipe_sources(recipe))
    records = _manifests(recipe, [layout.records(source) for source in sources])
    tokenized = [*sources, *adopted_sources(recipe)]
    datasets = _manifests(recipe, [layout.tokens(source) for source in tokenized])
    num_records = None if config.num_records is None else float(config.num_records)
    if records is not None:
        num_records = float(sum(each.counts.num_out for each in records))
    mean, num_tokens, held_out = config.tokens_per_record, None, None
    if datasets is not None:
        num_tokens = float(sum(each.counts.totals["tokens"] for each in datasets))
        held_out = float(sum(each.counts.totals["validation_tokens"] for each in datasets))
        mean = num_tokens / num_records if num_records and len(tokenized) == len(sources) else mean
    elif num_records is not None and mean is not None:
        num_tokens = num_records * mean
        held_out = _most_held_out(recipe, num_tokens, len(tokenized))
    return CorpusSizes(
        num_sources=len(sources),
        num_records=num_records,
        num_tokens=num_tokens,
        tokens_per_record=mean,
        held_out_tokens=held_out,
    )


def _most_held_out(recipe: Recipe, num_tokens: float, num_sources: int) -> float | None:
    """Returns what is held out at most: a share of the tokens, and so many of each source."""
    section = recipe.values.get("tokenize") or {}
    fraction, most = section.get("validation_fraction"), section.get("validation_max_tokens")
    if fraction is None or most is None:
        return None
    return min(num_tokens * float(fraction), num_sources * float(most))


def _manifests(recipe: Recipe, folders: Sequence[str]) -> list[Manifest] | None:
    """Returns the manifests of folders that are all finished, else None."""
    found = [read_manifest(recipe.run_folder / folder) for folder in folders]
    finished = [each for each in found if each is not None]
    return finished if finished and len(finished) == len(found) else None
