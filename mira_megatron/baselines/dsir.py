"""DSIR: importance resampling towards a target set (Xie et al. 2023, arXiv 2302.03169).

Reads   records/<source>/part-*.parquet; descriptors of target files, or sources that are targets
Writes  baselines/<name>/counts/<source>/counts.npy, baselines/<name>/targets/<target>/counts.npy,
        int64 counts of hashed grams (hashed_grams.py)
        record_scores/<name>/<source>/part-*.parquet: the record's log importance weight, plus
        Gumbel noise unless top_k

A record's weight is the package's, bit for bit: the dot product of its counts with the log ratio of
target and raw frequencies. Ranked with Gumbel noise, the best within a token budget are a sample
without replacement, as the package draws a number of documents.

Where this departs from the package: noise comes from a hash of seed and record id, so it depends on
neither order nor workers; raw frequencies are of the whole corpus, or a hashed `fit_fraction` of
it, where the package stops after so many grams; the budget is in tokens. `unit: chunk` is not the
package's: the paper draws chunks of 128 words, and here a record stays whole, so it is ranked by
its mean weight per 128 words (no pairs across chunks), which takes its length out of its weight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mira_megatron import layout
from mira_megatron.atomic_files import replacing
from mira_megatron.baselines.hashed_grams import HashedGrams, num_words, words_of
from mira_megatron.baselines.score_parts import Part, Scores, parts_of, uniform_of, write_scores
from mira_megatron.config import Recipe, fingerprinted, nearest
from mira_megatron.corpus.raw_digests import raw_files_digest
from mira_megatron.corpus.readers import BadRow, read_rows
from mira_megatron.corpus.sources import (
    SourceConfig,
    SourceFile,
    input_shards,
    resolve_files,
    source_from_mapping,
)
from mira_megatron.manifest import Counts
from mira_megatron.shards import map_shards
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 1
TOO_SHORT = "too_few_words"
_EPSILON = 1e-8  # added to frequencies before the logarithm, as in the package
_UNITS = ("document", "chunk")


@dataclass(frozen=True, kw_only=True, slots=True)
class DsirConfig:
    """The package's settings under its defaults, and what the target is."""

    target_sources: list[str] = field(default_factory=list)  # of this recipe
    targets: dict[str, Any] = field(default_factory=dict)  # name -> descriptor, as under `sources`
    num_buckets: int = 10_000
    min_words: int = 100  # a shorter record has no score; the package drops it
    top_k: bool = False  # without noise: the highest weights
    unit: str = "document"
    chunk_words: int = 128  # of unit=chunk; the paper's
    fit_fraction: float = 1.0  # of the records, for the raw frequencies

    def __post_init__(self) -> None:
        if self.unit not in _UNITS:
            raise ValueError(f"unit={self.unit!r} must be one of {', '.join(_UNITS)}")
        for name in ("num_buckets", "chunk_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.min_words < 0:
            raise ValueError(f"min_words={self.min_words} must be at least 0")
        if not 0 < self.fit_fraction <= 1:
            raise ValueError(f"fit_fraction={self.fit_fraction} must be in (0, 1]")
        if not self.target_sources and not self.targets:
            raise ValueError(
                "needs a target: target_sources (names of sources), or targets (descriptors, as "
                "under `sources`)"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CountSettings:
    """What counting one source, or one target of files, needs."""

    num_buckets: int
    records: str | None = None  # folder
    fit_fraction: float = 1.0
    purpose: str = ""
    config: SourceConfig | None = None  # of files
    folder: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WeighSettings:
    """What scoring one source needs."""

    config: DsirConfig
    source: str
    raw: tuple[str, ...]  # folders of counts
    targets: tuple[str, ...]
    purpose: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Weighing:
    config: DsirConfig
    log_ratio_B: npt.NDArray[np.float64]
    purpose: str


def dsir_units(
    recipe: Recipe, baseline: str, config: DsirConfig, sources: Sequence[str], where: str
) -> list[Unit]:
    """Returns the units that count, then one per source that weighs its records."""
    for name in config.target_sources:
        if name not in sources:
            raise ValueError(f"{where}.target_sources: no source {name!r}.{nearest(name, sources)}")
    if both := sorted(set(config.target_sources) & set(config.targets)):
        raise ValueError(f"{where}: {both[0]} is in target_sources and in targets; rename one")
    purpose = f"{recipe.seed}:{baseline}"
    raw = [
        _count_unit(
            layout.gram_counts(baseline, source),
            f"{baseline}.{source}.counts",
            CountSettings(
                num_buckets=config.num_buckets,
                records=layout.records(source),
                fit_fraction=config.fit_fraction,
                purpose=purpose,
            ),
        )
        for source in sources
    ]
    targets = [
        _count_unit(
            layout.target_counts(baseline, source),
            f"{baseline}.{source}.target",
            CountSettings(num_buckets=config.num_buckets, records=layout.records(source)),
        )
        for source in config.target_sources
    ]
    targets += [
        _file_unit(recipe, baseline, name, descriptor, config, where)
        for name, descriptor in sorted(config.targets.items())
    ]
    counts = {"raw": _folders(raw), "targets": _folders(targets)}
    shown = {name: value for name, value in fingerprinted(config).items() if name != "targets"}
    scored = [
        Unit(
            stage="baseline",
            name=f"{baseline}.{source}",
            folder=layout.record_scores(baseline, source),
            version=VERSION,
            config={"method": "dsir", **shown, "seed": recipe.seed},
            upstream=(layout.records(source), *counts["raw"], *counts["targets"]),
            work="mira_megatron.baselines.dsir:weigh",
            settings=WeighSettings(config=config, source=source, purpose=purpose, **counts),
        )
        for source in sources
    ]
    return [*raw, *targets, *scored]


def _folders(units: Sequence[Unit]) -> tuple[str, ...]:
    return tuple(unit.folder for unit in units)


def _count_unit(folder: str, name: str, settings: CountSettings) -> Unit:
    assert settings.records is not None
    return Unit(
        stage="baseline",
        name=name,
        folder=folder,
        version=VERSION,
        config=_counted_as(settings),
        upstream=(settings.records,),
        work="mira_megatron.baselines.dsir:count",
        settings=settings,
    )


def _counted_as(settings: CountSettings) -> dict[str, Any]:
    is_sampled = settings.fit_fraction < 1
    return {
        "num_buckets": settings.num_buckets,
        "fit_fraction": settings.fit_fraction,
        "sample": settings.purpose if is_sampled else None,
    }


def _file_unit(
    recipe: Recipe, baseline: str, name: str, descriptor: Any, config: DsirConfig, where: str
) -> Unit:
    here = f"{where}.targets.{name}"
    if not isinstance(descriptor, Mapping):
        raise ValueError(f"{here}: {descriptor!r}, expected a descriptor, as under `sources`")
    source = source_from_mapping(descriptor, here)
    if source.degraded_copies:
        raise ValueError(
            f"{here}: degraded_copies={source.degraded_copies}, but a target is what good records "
            "look like. Leave degraded_copies out."
        )
    settings = CountSettings(
        num_buckets=config.num_buckets, config=source, folder=recipe.path.parent
    )
    return Unit(
        stage="baseline",
        name=f"{baseline}.{name}.target",
        folder=layout.target_counts(baseline, name),
        version=VERSION,
        config={**_counted_as(settings), "descriptor": fingerprinted(source)},
        raw_files=_files_digest(recipe, source, f"{baseline}-{name}"),
        work="mira_megatron.baselines.dsir:count_files",
        settings=settings,
    )


def _files_digest(
    recipe: Recipe, source: SourceConfig, name: str
) -> Callable[[], Mapping[str, str]]:
    def digest() -> dict[str, str]:
        files = resolve_files(source, recipe.path.parent)
        cache = recipe.run_folder / ".raw_digests" / f"target-{name}.json"
        return {"files": raw_files_digest(files, cache)}

    return digest


def count(workspace: Workspace, settings: CountSettings) -> WorkResult:
    """Writes the summed counts of a source's records."""
    assert settings.records is not None
    tasks = [(part, settings) for part in parts_of(workspace, settings.records)]
    return _write_counts(workspace, _count_part, tasks, settings.num_buckets)


def count_files(workspace: Workspace, settings: CountSettings) -> WorkResult:
    """Writes the summed counts of a target's files. Raises ValueError for a row that is none."""
    assert settings.config is not None
    assert settings.folder is not None
    files = resolve_files(settings.config, settings.folder)
    tasks = [(shard, settings) for shard in input_shards(settings.config, files)]
    return _write_counts(workspace, _count_shard, tasks, settings.num_buckets)


def _write_counts(
    workspace: Workspace, function: Any, tasks: Sequence[Any], num_buckets: int
) -> WorkResult:
    workers, title = workspace.resources.workers, workspace.unit.label
    total_B = np.zeros(num_buckets, np.int64)
    nums: Counter[str] = Counter()
    for counts_B, counted in map_shards(function, tasks, workers=workers, title=title):
        total_B += counts_B
        nums.update(counted)
    with replacing(workspace.folder / layout.GRAM_COUNTS) as path, path.open("wb") as file:
        np.save(file, total_B)
    return WorkResult(
        counts=Counts(
            num_in=nums["read"],
            num_out=nums["counted"],
            dropped={"not in the sample": num} if (num := nums["read"] - nums["counted"]) else {},
            totals={"grams": int(total_B.sum())},
        )
    )


def _count_part(task: tuple[Part, CountSettings]) -> tuple[npt.NDArray[np.int64], dict[str, int]]:
    part, settings = task
    table = part.rows(["record_id", "text"])
    num_read = table.num_rows
    if settings.fit_fraction < 1:
        uniform = uniform_of(table["record_id"].to_pylist(), f"{settings.purpose}:fit")
        table = table.filter(uniform < settings.fit_fraction)
    counts_B = _summed(table["text"].to_pylist(), settings.num_buckets)
    return counts_B, {"read": num_read, "counted": table.num_rows}


def _count_shard(
    task: tuple[Sequence[SourceFile], CountSettings],
) -> tuple[npt.NDArray[np.int64], dict[str, int]]:
    shard, settings = task
    assert settings.config is not None
    texts = []
    for row in read_rows(settings.config, shard):
        if isinstance(row, BadRow):
            raise ValueError(
                f"{row.origin}: {row.reason} ({row.detail}): a target of DSIR must be whole. "
                "Correct the row, or the descriptor's fields"
            )
        texts.append(row.text)
    return _summed(texts, settings.num_buckets), {"read": len(texts), "counted": len(texts)}


def _summed(texts: Sequence[str], num_buckets: int) -> npt.NDArray[np.int64]:
    total_B = np.zeros(num_buckets, np.int64)
    for counts_B in HashedGrams(num_buckets).counts(texts):
        total_B += counts_B
    return total_B


def weigh(workspace: Workspace, settings: WeighSettings) -> WorkResult:
    """Writes the record scores of one source."""
    raw_B, target_B = (
        np.sum([_read_counts(workspace, folder) for folder in folders], axis=0)
        for folders in (settings.raw, settings.targets)
    )
    for side, counts_B in (("the corpus", raw_B), ("the target", target_B)):
        if not counts_B.any():
            raise ValueError(
                f"{workspace.unit.label}: no words were counted in {side}; DSIR needs text on both "
                "sides"
            )
    weighing = _Weighing(
        config=settings.config,
        log_ratio_B=log_ratio(raw_B, target_B),
        purpose=settings.purpose,
    )
    return write_scores(workspace, layout.records(settings.source), _weigh_part, weighing)


def log_ratio(
    raw_B: npt.NDArray[np.int64], target_B: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Returns log frequencies in the target minus those in the raw corpus, per bucket (B,)."""
    logs: npt.NDArray[np.float64] = np.log(target_B / target_B.sum() + _EPSILON) - np.log(
        raw_B / raw_B.sum() + _EPSILON
    )
    return logs


def gumbel_of(record_ids: Sequence[str], purpose: str) -> npt.NDArray[np.float64]:
    """Returns standard Gumbel noise per record, from a hash."""
    noise: npt.NDArray[np.float64] = -np.log(-np.log(uniform_of(record_ids, f"{purpose}:gumbel")))
    return noise


def _read_counts(workspace: Workspace, folder: str) -> npt.NDArray[np.int64]:
    ((path, _),) = workspace.upstream_parts(folder, layout.GRAM_COUNTS)
    counts_B: npt.NDArray[np.int64] = np.load(path)
    return counts_B


def _weigh_part(part: Part, weighing: _Weighing) -> Scores:
    table = part.rows(["record_id", "text"])
    config = weighing.config
    weights = list(_weights(table["text"].to_pylist(), weighing))
    record_ids = table["record_id"].to_pylist()
    noise = np.zeros(len(weights)) if config.top_k else gumbel_of(record_ids, weighing.purpose)
    return Scores(
        record_ids=table["record_id"],
        scores=[
            None if weight is None else weight + float(each)
            for weight, each in zip(weights, noise, strict=True)
        ],
        reasons=[TOO_SHORT if weight is None else None for weight in weights],
    )


def _weights(texts: Sequence[str], weighing: _Weighing) -> Iterator[float | None]:
    """Yields every text's log importance weight, None for one that is too short."""
    config = weighing.config
    grams = HashedGrams(config.num_buckets)
    if config.unit == "document":
        for counts_B in grams.counts(texts):
            is_long = num_words(counts_B) >= config.min_words
            # In float64 and as one dot product: the package's bits depend on the order of sums.
            yield float(np.dot(weighing.log_ratio_B, counts_B)) if is_long else None
        return
    for text in texts:
        words = words_of(text)
        if len(words) < max(config.min_words, 1):
            yield None
            continue
        chunks = [
            words[start : start + config.chunk_words]
            for start in range(0, len(words), config.chunk_words)
        ]
        total = sum(
            float(np.dot(weighing.log_ratio_B, each)) for each in grams.counts_of_words(chunks)
        )
        yield total * config.chunk_words / len(words)
