"""Runs of the first two stages over sources made of a few words each."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.corpus import ingest
from mira_megatron.grouping import group
from mira_megatron.manifest import Manifest
from mira_megatron.stage import Resources, Run, Unit, run_unit

PROSE = "the old garden and a letter from her house by river when rain fell on roses"
ESSAY = "the old house and a garden by river were written about when her letter came"
CODE = "def return self for in range if not None raise ValueError( ) : [ ] = == += x y"
CHINESE = "这条 河边的 老房子 里有 很多 玫瑰 雨水 打湿了 花园 小路 一封信 寄来 她的"

GROUP = {
    "by": "similarity",
    "records_per_source": 30,
    "min_silhouette": 0.15,
    "min_cosine": 0.4,
    "num_resamples": 3,
}
EMBEDDER = {"engine": "tfidf_svd", "dimensions": 16, "max_chars": 500}


def texts_of(words: str, *, num: int = 40, start: str = "", seed: int = 1) -> list[str]:
    """Returns texts of 40 words each, drawn from these."""
    generator = random.Random(f"{words} {seed}")
    return [start + " ".join(generator.choices(words.split(), k=40)) for _ in range(num)]


def recipe_of(
    folder: Path,
    sources: Mapping[str, Sequence[str]],
    *,
    pins: Mapping[str, str] | None = None,
    families: Mapping[str, str] | None = None,
    **changes: Any,
) -> Recipe:
    """Writes the sources' rows and returns a recipe over them; `changes` are whole sections."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptors = {}
    for name, texts in sources.items():
        rows = folder / f"{name}.jsonl"
        if not rows.exists():
            fields = [{"t": text, "q": text, "a": text} for text in texts]
            rows.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in fields))
        family = (families or {}).get(name, "text")
        wanted = {"text": "t"} if family == "text" else {"question": "q", "answer": "a"}
        pin = {"group": pins[name]} if pins and name in pins else {}
        descriptors[name] = {
            "format": "jsonl",
            "family": family,
            "fields": wanted,
            "paths": [rows.name],
            **pin,
        }
    values = {
        "run_folder": str(folder / "run"),
        "seed": 1,
        "sources": descriptors,
        "ingest": {"records_per_part": 25, "max_bad_fraction": 0},
        "embedder": EMBEDDER,
        "group": GROUP,
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(values))
    return load_recipe(path)


def run_units(recipe: Recipe, units: Sequence[Unit], workers: int = 1) -> dict[str, Manifest]:
    """Runs units and returns their manifests by folder."""
    run = Run(folder=recipe.run_folder)
    resources = Resources(workers=workers)
    return {unit.folder: run_unit(unit, run, resources) for unit in units}


def grouped(recipe: Recipe, workers: int = 1) -> dict[str, Manifest]:
    """Runs ingest and group and returns the manifests of the latter by folder."""
    run_units(recipe, ingest.units(recipe))
    return run_units(recipe, group.units(recipe), workers)


def read_json(recipe: Recipe, file: str) -> Any:
    """Returns the content of a file in the run folder."""
    return orjson.loads((recipe.run_folder / file).read_bytes())
