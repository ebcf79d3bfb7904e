"""Make what every arm is instruction-tuned on: the same conversations, in the same order.

Reads   records/<source>/part-*.parquet of the sources named, and the files named; tokenizer/;
        tokens/<source>/ of every source, for the documents that are held out
Writes  instruct_data/every_arm/training.parquet, validation.parquet: see data_files.py
        instruct_data/every_arm/dropped.jsonl: the conversations left out, and why
        instruct_data/every_arm/instruct_data.json: counts, vocabulary, the token that ends a turn
Keeps   each text once; a text that any source holds out is on neither side
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.corpus.raw_digests import raw_files_digest
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.corpus.sources import SourceFile
from mira_megatron.instruct.instruct_config import InstructConfig, instruct_config
from mira_megatron.stage import Unit

VERSION = 2

# What of the section decides these files.
_DECIDING = ("sources", "num_records", "validation_fraction", "sequence_length")


@dataclass(frozen=True, kw_only=True, slots=True)
class InstructDataSettings:
    """What the unit needs."""

    config: InstructConfig
    seed: int
    files: tuple[SourceFile, ...]  # named by `data`
    token_sources: tuple[str, ...]  # whose held-out texts are left out


def units(recipe: Recipe) -> list[Unit]:
    """Returns the one unit; none where no arm is tuned here."""
    config = instruct_config(recipe)
    if config is None:
        return []
    paths = [recipe.path_of(name) for name in config.data or ()]
    # Numbered: two folders may hold files of one name.
    files = [SourceFile(path=path, name=f"{i}/{path.name}") for i, path in enumerate(paths)]
    sources = tuple(sorted(recipe_sources(recipe)))
    return [
        Unit(
            stage="instruct-data",
            name="every_arm",
            folder=layout.INSTRUCT_DATA,
            version=VERSION,
            config={**{name: getattr(config, name) for name in _DECIDING}, "seed": recipe.seed},
            upstream=(
                layout.TOKENIZER,
                *(layout.records(name) for name in config.sources or ()),
                *(layout.tokens(name) for name in sources),
            ),
            raw_files=_raw_files(recipe.run_folder, files) if files else None,
            work="mira_megatron.instruct.data_work:instruct_data",
            settings=InstructDataSettings(
                config=config, seed=recipe.seed, files=tuple(files), token_sources=sources
            ),
        )
    ]


def _raw_files(run_folder: Path, files: list[SourceFile]) -> Callable[[], dict[str, str]]:
    """Returns what digests the files of `data`, naming one that is not there."""

    def digest() -> dict[str, str]:
        for file in files:
            if not file.path.is_file():
                raise FileNotFoundError(f"{file.path}: no such file. instruct_sft.data names it.")
        return {"data": raw_files_digest(files, run_folder / ".raw_digests" / "instruct-data.json")}

    return digest
