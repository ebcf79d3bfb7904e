"""Adopt token datasets that exist already, read-only, with their ids and scores.

Reads   the `.bin/.idx` pairs and parquet tables that a recipe's `adopt` section names
Writes  tokens/<source>/<prefix name>-<digest8>.records.parquet: row i describes document i
        tokens/<source>/dataset.json: where the pairs lie, their fingerprints, counts
        record_scores/<score>/<source>/part-*.parquet: one part per pair
Keeps   the order of documents; nothing outside the run folder is written or copied

There is no text: held-out documents and their copies are found by a hash of the tokens instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.corpus.raw_digests import raw_files_digest
from mira_megatron.corpus.sources import SourceFile
from mira_megatron.shards import json_digest
from mira_megatron.stage import Unit
from mira_megatron.tokenization.adopted import (
    AdoptedSource,
    TableConfig,
    adopted_sources,
    check_no_pair_adopted_twice,
)
from mira_megatron.tokenization.index_file import bin_path, idx_path
from mira_megatron.tokenization.tokenize import TokenizeConfig

VERSION = 2
_TOKENS = "mira_megatron.tokenization.adopt_tokens:adopt_tokens"
_SCORES = "mira_megatron.tokenization.adopt_scores:adopt_scores"


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptSettings:
    """What a source's unit needs."""

    source: AdoptedSource
    tokenize: TokenizeConfig  # its EOD token, and how much is held out


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptScoresSettings:
    """What the unit of a source's score table needs."""

    source: AdoptedSource
    score: str
    table: TableConfig


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per adopted source and one per table of its scores."""
    adopted = adopted_sources(recipe)
    if not adopted:
        return []
    if "tokenize" not in recipe.values:
        raise ValueError(
            f"{recipe.path}: adopt needs a section `tokenize` with the tokenizer the datasets were "
            "made with (tokenizer, eod_token, validation_fraction, validation_max_tokens)"
        )
    config = recipe.section("tokenize", TokenizeConfig)
    # Once for all sources, and not before files are asked for.
    check = cache(lambda: check_no_pair_adopted_twice(adopted.values()))
    return [
        unit
        for source in adopted.values()
        for unit in (
            _tokens_unit(recipe, config, source, check),
            *(_scores_unit(recipe, source, score) for score in source.scores),
        )
    ]


def _tokens_unit(
    recipe: Recipe,
    config: TokenizeConfig,
    source: AdoptedSource,
    check_sources: Callable[[], None],
) -> Unit:
    def raw_files() -> dict[str, str]:
        check_sources()
        prefixes = source.path_prefixes()
        tables = source.table_paths(source.ids) if source.ids else []
        indices = [idx_path(prefix) for prefix in prefixes]
        # A .bin may hold 100 GB: it is known by its size and time, as `make` does it.
        stamps = {str(bin_path(prefix)): _stamp(bin_path(prefix)) for prefix in prefixes}
        digest = _digest(recipe, source.name, [*indices, *tables])
        return {"prefixes": json_digest([str(prefix) for prefix in prefixes]), "files": digest} | {
            f"size and time of {path}": stamp for path, stamp in stamps.items()
        }

    return Unit(
        stage="adopt",
        name=source.name,
        folder=layout.tokens(source.name),
        version=VERSION,
        config={
            "eod_token": config.eod_token,
            "validation_fraction": config.validation_fraction,
            "validation_max_tokens": config.validation_max_tokens,
            "check_tokens": source.config.check_tokens,
            "ids": _columns(source.ids),
        },
        upstream=(layout.TOKENIZER,),
        raw_files=raw_files,
        work=_TOKENS,
        settings=AdoptSettings(source=source, tokenize=config),
    )


def _scores_unit(recipe: Recipe, source: AdoptedSource, score: str) -> Unit:
    table = source.scores[score]

    def raw_files() -> dict[str, str]:
        return {"tables": _digest(recipe, f"{source.name}.{score}", source.table_paths(table))}

    return Unit(
        stage="adopt",
        name=f"{source.name} scores {score}",
        folder=layout.record_scores(score, source.name),
        version=VERSION,
        config={"table": _columns(table)},
        upstream=(layout.tokens(source.name),),
        raw_files=raw_files,
        work=_SCORES,
        settings=AdoptScoresSettings(source=source, score=score, table=table),
    )


def _columns(table: TableConfig | None) -> dict[str, Any] | None:
    """Returns how a table is read; which files it has is an input."""
    if table is None:
        return None
    return {key: value for key, value in asdict(table).items() if key != "paths"}


def _digest(recipe: Recipe, name: str, paths: list[Path]) -> str:
    files = [SourceFile(path=path, name=str(path)) for path in paths]
    return raw_files_digest(files, recipe.run_folder / ".raw_digests" / f"adopt.{name}.json")


def _stamp(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected it beside its .idx")
    status = path.stat()
    return f"{status.st_size} bytes, {status.st_mtime_ns} ns"
