"""Runs with three arms and the base, whose measurements were written by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from evaluations import bits, write_entry
from small_run import ARM, HELD_OUT, SmallRecord, finish, record_id, with_arm, write_run

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.eval.contamination.scan import HIT_SCHEMA
from mira_megatron.manifest import Manifest
from mira_megatron.pipeline import stage_units
from mira_megatron.shards import write_parquet
from mira_megatron.stage import Resources, Run, run_unit
from mira_megatron.training import held_out

SOURCES = {
    name: [
        HELD_OUT,
        SmallRecord(text=f"{name} a", score=9.0, num_tokens=10),
        SmallRecord(text=f"{name} b", score=8.0, num_tokens=30),
        SmallRecord(text=f"{name} c", score=7.0, num_tokens=50),
    ]
    for name in ("books", "code")
}
SEEDS = [7, 8, 9]
BYTES = {"books": [100, 200, 300], "code": [50, 150]}
# Bits per byte of each arm by seed: the same on every document, so that a reader can check them.
BITS = {ARM: [1.0, 1.01, 0.99], "random": [2.0, 2.02, 1.98], "other": [2.0, 2.3, 1.6]}


def write_losses(run_folder: Path, model: str, bits_per_byte: float) -> None:
    """Writes what held-out leaves of a model."""
    rows = [
        {
            "source": source,
            "record_id": f"{source}-{number}",
            "num_tokens": 9,
            "num_bytes": num_bytes,
            # A little of its own for each document, nothing in sum.
            "nats": math.log(2) * (bits_per_byte * num_bytes + (number == 0) - (number == 1)),
        }
        for source, sizes in BYTES.items()
        for number, num_bytes in enumerate(sizes)
    ]
    folder = run_folder / layout.held_out(model)
    write_parquet(folder / held_out.DOCUMENTS, pa.Table.from_pylist(rows, held_out.SCHEMA))
    finish(folder, "held-out", model)


def compared(
    folder: Path,
    seeds: list[int] | None = None,
    sources: Mapping[str, Sequence[SmallRecord]] = SOURCES,
    **section: Any,
) -> Recipe:
    """Returns a run with three arms and the base, ready for the table."""
    recipe = write_run(folder, sources, budget_tokens=20)
    recipe = with_arm(recipe, "random", budget_tokens=80)
    recipe = with_arm(recipe, "other", budget_tokens=80)
    content = orjson.loads(recipe.path.read_bytes())
    content["midtrain"] = {"base": "/models/base"}
    content["ablation"] = {"seeds": seeds or SEEDS, "base_arm": "base", "resamples": 500, **section}
    recipe.path.write_bytes(orjson.dumps(content))
    recipe = load_recipe(recipe.path)
    for arm, by_seed in BITS.items():
        for seed, loss in zip(SEEDS, by_seed, strict=True):
            model = arm if seed == SEEDS[0] else f"{arm}.seed{seed}"
            write_losses(recipe.run_folder, model, loss)
            checkpoint = recipe.run_folder / layout.checkpoints(model)
            checkpoint.mkdir(parents=True, exist_ok=True)
            state = {"global_step": 40, "num_train_tokens": 1, "log_history": []}
            (checkpoint / "trainer_state.json").write_bytes(orjson.dumps(state))
            finish(checkpoint, "midtrain", model)
    write_losses(recipe.run_folder, "base", 3.0)
    return recipe


def make(recipe: Recipe) -> Manifest:
    (unit,) = stage_units(recipe, "ablation")
    return run_unit(unit, Run(folder=recipe.run_folder), Resources())


NUM_TASKS = 200
# Right tasks of ten on MBPP, of each arm by seed.
RIGHT = {ARM: [8, 9, 8], "random": [4, 5, 4], "other": [4, 8, 2], "base": [1, 1, 1]}


def evaluated(recipe: Recipe, **section: Any) -> Recipe:
    """Returns the run with a section `eval`, and what that stage leaves of every model."""
    content = orjson.loads(recipe.path.read_bytes())
    content["eval"] = {"suite": "suite.yaml", **section}
    recipe.path.write_bytes(orjson.dumps(content))
    recipe = load_recipe(recipe.path)
    for arm, by_seed in RIGHT.items():
        for seed, right in zip(SEEDS, by_seed, strict=True):
            is_first = seed == SEEDS[0]
            if is_first or arm != "base":
                write_scores(recipe.run_folder, arm if is_first else f"{arm}.seed{seed}", right)
    for source in SOURCES:
        write_hits(recipe.run_folder, source, [])
    return recipe


def write_scores(run_folder: Path, model: str, right: int) -> None:
    """Writes a model's verdicts on tasks of MBPP, so many of ten right."""
    folder = run_folder / layout.evaluation(model)
    digits = "1" * right + "0" * (10 - right)
    write_entry(folder, "mbpp", {"mbpp": bits(digits * (NUM_TASKS // 10))})
    finish(folder, "eval", model)


def write_hits(run_folder: Path, source: str, hits: Sequence[tuple[int, str, str, float]]) -> None:
    """Writes what the scan found: number of a record, benchmark, surface, score."""
    rows = [
        {
            "record_id": record_id(source, number),
            "benchmark": benchmark,
            "split": "test",
            "task_id": "t",
            "surface": surface,
            "score": score,
            "start": 0,
            "end": 1,
        }
        for number, benchmark, surface, score in hits
    ]
    folder = run_folder / layout.contamination(source)
    path = folder / "parts" / source / "part-00000.parquet"
    write_parquet(path, pa.Table.from_pylist(rows, HIT_SCHEMA))
    finish(folder, "contamination", source)
