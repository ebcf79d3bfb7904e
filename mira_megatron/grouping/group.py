"""Group the sources of each family by what their records are like.

Reads   records/<source>/part-*.parquet
Writes  groups/<rubric>/<family>/: source_groups.json, similarity.json, groups.md, sample.parquet
        joined/<rubric>/<source>/source_group.json, for a source that came after the founding
Keeps   a founded rubric as it is: what comes or goes later moves no founder to another group
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mira_megatron import layout
from mira_megatron.config import Recipe, fingerprinted, nearest
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.corpus.sources import SourceConfig
from mira_megatron.grouping.embedders import (
    EmbedderConfig,
    embedder_fingerprint,
    recipe_embedder,
)
from mira_megatron.grouping.source_groups import families, founders
from mira_megatron.manifest import read_manifest
from mira_megatron.records import FAMILIES
from mira_megatron.stage import Unit

VERSION = 1
BY = ("similarity", "family", "source")


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupConfig:
    """How sources that are not pinned become source groups, within their family."""

    by: str  # one of BY: what is alike together, or a group per family, or a group per source
    records_per_source: int  # sampled and embedded; a smaller source gives all it has
    min_silhouette: float  # of the best clustering, in [-1, 1]; where none is this good …
    min_cosine: float  # … one group if the sources' mean cosine is this high, else one each
    num_resamples: int  # of the records, to see how stable the groups are
    # by=similarity only: family -> how many groups; null, or no entry, to choose by silhouette.
    num_groups: dict[str, int | None] = field(default_factory=dict)
    # Sources to found the rubric with; none: all there are. Each unit names its own in its inputs.
    founders: list[str] = field(default_factory=list, metadata={"execution": True})

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise ValueError(f"by={self.by!r} must be one of {', '.join(BY)}")
        if self.records_per_source < 1:
            raise ValueError(f"records_per_source={self.records_per_source} must be at least 1")
        if self.num_resamples < 0:
            raise ValueError(f"num_resamples={self.num_resamples} must not be negative")
        for name in ("min_silhouette", "min_cosine"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be in [-1, 1]")
        for family, number in self.num_groups.items():
            if family not in FAMILIES:
                raise ValueError(f"num_groups: no family {family!r}.{nearest(family, FAMILIES)}")
            if number is not None and (self.by != "similarity" or number < 1):
                raise ValueError(
                    f"num_groups.{family}={number} must be at least 1, and goes with by=similarity"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSettings:
    """Which records of a source are looked at, and how they become vectors."""

    records_per_source: int
    embedder: EmbedderConfig
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundingSettings:
    """What the founding of one family's groups needs."""

    rubric: str
    family: str
    sources: tuple[str, ...]
    pins: Mapping[str, str]  # source -> group, of the sources that are pinned
    config: GroupConfig
    sample: SampleSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class JoiningSettings:
    """What finding the group of a later source needs."""

    rubric: str
    family: str
    source: str
    pin: str | None
    sample: SampleSettings


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per family, which founds its groups, and one per source that came later.

    A recipe without a `group` section has none: see grouping.source_groups.
    """
    if "group" not in recipe.values:
        return []
    config = recipe.section("group", GroupConfig)
    sources = {name: source for name, (source, _) in recipe_sources(recipe).items()}
    _check_pins(recipe, sources)
    for name in config.founders:
        if name not in sources:
            raise ValueError(f"{recipe.path}: group.founders: {name!r} is no source of this recipe")
    sample = SampleSettings(
        records_per_source=config.records_per_source,
        embedder=recipe_embedder(recipe),
        seed=recipe.seed,
    )
    founded = {family: founders(recipe, family) for family in families(recipe)}
    return [
        *(_founding(recipe, family, founded[family], config, sample) for family in founded),
        *(
            _joining(recipe, name, source, sample)
            for name, source in sources.items()
            if name not in founded[source.family]
        ),
    ]


def family_of_group(name: str) -> str:
    """Returns the family that a group's name begins with, the longest of several."""
    fitting = [family for family in FAMILIES if f"{name}-".startswith(f"{group_prefix(family)}-")]
    return max(fitting, key=len)


def group_prefix(family: str) -> str:
    """Returns what the names of a family's groups begin with."""
    return family.replace("_", "-")


def _founding(
    recipe: Recipe,
    family: str,
    sources: tuple[str, ...],
    config: GroupConfig,
    sample: SampleSettings,
) -> Unit:
    pins = _founders_pins(recipe, family, sources)
    records = tuple(layout.records(source) for source in sources)
    return Unit(
        stage="group",
        name=family,
        folder=layout.groups(recipe.rubric, family),
        version=VERSION,
        config={
            **fingerprinted(config),
            "num_groups": config.num_groups.get(family),
            "embedder": embedder_fingerprint(sample.embedder),
            "seed": sample.seed,
            "pins": pins,
        },
        upstream=records,
        outlives=records,
        work="mira_megatron.grouping.founding:found",
        settings=FoundingSettings(
            rubric=recipe.rubric,
            family=family,
            sources=sources,
            pins=pins,
            config=config,
            sample=sample,
        ),
    )


def _joining(recipe: Recipe, name: str, source: SourceConfig, sample: SampleSettings) -> Unit:
    records = layout.records(name)
    return Unit(
        stage="group",
        name=f"joined {name}",
        folder=layout.joined(recipe.rubric, name),
        version=VERSION,
        config={
            "records_per_source": sample.records_per_source,
            "embedder": embedder_fingerprint(sample.embedder),
            "seed": sample.seed,
        },
        upstream=(layout.groups(recipe.rubric, source.family), records),
        outlives=(records,),
        # An input, unlike a founder's: another pin moves this source and no other.
        raw_inputs={"pin": source.group} if source.group is not None else {},
        work="mira_megatron.grouping.joining:join",
        settings=JoiningSettings(
            rubric=recipe.rubric,
            family=source.family,
            source=name,
            pin=source.group,
            sample=sample,
        ),
    )


def _founders_pins(recipe: Recipe, family: str, sources: tuple[str, ...]) -> dict[str, str]:
    """Returns the pins of founders; one that has left the recipe keeps what it was founded with."""
    manifest = read_manifest(recipe.run_folder / layout.groups(recipe.rubric, family))
    pins: dict[str, str | None] = dict(manifest.config["pins"]) if manifest is not None else {}
    pins.update({name: source.group for name, (source, _) in recipe_sources(recipe).items()})
    return {source: pin for source in sources if (pin := pins.get(source)) is not None}


def _check_pins(recipe: Recipe, sources: Mapping[str, SourceConfig]) -> None:
    """Raises ValueError for a pin that is another family's group."""
    for name, source in sources.items():
        if source.group is None:
            continue
        family = family_of_group(source.group)
        if family != source.family:  # only qa can be taken for qa_with_think, see SourceConfig
            raise ValueError(
                f"{recipe.path}: sources.{name} is of family {source.family}, but group "
                f"{source.group} is one of family {family} by its name. A group has one family, "
                "because one prompt judges all its records: pin the source to another name"
            )
