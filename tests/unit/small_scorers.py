"""A small run's scorers, and how far they agree with the teacher, made for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from small_run import ANCHORS, TABLE, finish

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe
from mira_megatron.distill.scorer_card import ScorerCard
from mira_megatron.manifest import Counts
from mira_megatron.records import RATING_SCHEMA
from mira_megatron.reliability.cells import CELL_SCHEMA, Cell
from mira_megatron.reliability.mask import MASK_SCHEMA
from mira_megatron.retention import sensitivity
from mira_megatron.rubric.prompt_form import PromptForm
from mira_megatron.shards import part_name, write_parquet
from mira_megatron.stage import Resources, Run, run_unit

# Slot by slot: three anchors are followed, under two names; the fourth only as length goes.
RHOS = (0.9, 0.5, 0.4, 0.45, 0.25, None, *[-0.1] * 9)
LENGTHS = (0.1, -0.2, 0.3, -0.6, None, 0.1, *[-0.3] * 9)
NAMES = (ANCHORS[0], ANCHORS[0], *ANCHORS[2:])
# A Qwen2 model of 2 layers: 20 x 8 embeddings, 2 x (208 of attention, 384 of MLP), 5 norms x 8.
CONFIG = {
    "model_type": "qwen2",
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}
BARE = PromptForm(prompt="bare", references=False, answers="compact")


def with_scorers(recipe: Recipe) -> Recipe:
    """Returns the recipe as one that labels, distils and scores."""
    score = {"engine": "transformers", "max_tokens": 64, "answer_mode": "expected"}
    return replace(recipe, values={**recipe.values, "distill": {}, "label": {}, "score": score})


def with_masks(recipe: Recipe) -> Recipe:
    """Returns the recipe as one that masks the anchors its scorers do not follow.

    What its masks leave open is flipped.
    """
    masking = replace(recipe, values={**recipe.values, "reliability": {}})
    for unit in sensitivity.units(masking):
        run_unit(unit, Run(folder=masking.run_folder), Resources())
    return masking


def write_scorer(
    run_folder: Path, group: str, *, form: PromptForm = BARE, is_trained_here: bool = True
) -> None:
    """Writes what distill leaves of a group's scorer, without its weights."""
    folder = run_folder / layout.scorer(TABLE, group)
    write_json(folder / "hf" / "config.json", CONFIG)
    if is_trained_here:
        log = [
            {"step": 0, "eval_loss": 6.5, "eval_tokens": 64},
            {"step": 8, "loss": 2.25, "learning_rate": 0.1, "grad_norm": 1.0},
            {"step": 8, "eval_loss": 2.5, "eval_tokens": 64},
        ]
        state = {"global_step": 8, "max_steps": 8, "num_train_tokens": 4321, "log_history": log}
        write_json(folder / "trainer_state.json", state)
    ScorerCard(
        rubric=TABLE,
        group=group,
        family="text",
        rubric_version="0" * 32,
        prompt_key="0" * 32,
        form=form,
        max_record_tokens=320,
        max_model_len=512,
        served_model_name=f"mira-{TABLE}-{group}",
    ).save(folder)
    finish(folder, "distill", group)


def write_reliability(
    run_folder: Path,
    source: str,
    *,
    rhos: Sequence[float | None] = RHOS,
    names: Sequence[str] = NAMES,
    model: str = "mira-scorer",
    n: int = 50,
) -> None:
    """Writes what reliability leaves of a source: 40 answers in full, 8 in part, 2 unreadable."""
    folder = run_folder / layout.reliability(TABLE, source)
    rows = [
        asdict(
            Cell(
                source=source,
                group=f"text-{source}",
                anchor_id=f"A{slot}",
                anchor_name=name,
                model=model,
                prompt_key="0" * 32,
                answer_mode="expected",
                n=n,
                mae=1.25 if n else None,
                mae_low=1.0 if n else None,
                mae_high=1.5 if n else None,
                rho=rho,
                rho_low=None if rho is None else max(rho - 0.1, -1.0),
                rho_high=None if rho is None else min(rho + 0.1, 1.0),
                rho_of_length=length,
                reason="the scorer gave every record the same score" if rho is None else None,
            )
        )
        for slot, (name, rho, length) in enumerate(zip(names, rhos, LENGTHS, strict=True), start=1)
    ]
    table = pa.Table.from_pylist(rows, schema=CELL_SCHEMA)
    write_parquet(folder / "cells.parquet", table)
    rating = {
        "record_id": "r",
        "content_key": "0" * 32,
        "model": model,
        "prompt_key": "0" * 32,
        "answer_mode": "expected",
        "view_policy": "whole",
        "num_attempts": 1,
        "scores": [5.0] * 15,
        "rationales": [None] * 15,
        "status": "ok",
    }
    write_parquet(folder / part_name(0), pa.Table.from_pylist([rating], schema=RATING_SCHEMA))
    totals = {"ok": 40, "partial": 8, "unparsed": 2, "anchors followed": 3}
    finish(folder, "reliability", source, counts=Counts(num_in=50, num_out=50, totals=totals))


def write_mask(
    run_folder: Path,
    source: str,
    decisions: Sequence[str],
    is_masked: Sequence[bool],
    *,
    scoring: str = TABLE,
) -> None:
    """Writes what a score table decides about the cells that reliability left of a source."""
    cells = run_folder / layout.reliability(TABLE, source) / layout.CELLS
    folder = run_folder / layout.reliability_mask(scoring, source)
    rows = [
        {**row, "decision": decision, "is_masked": masked}
        for row, decision, masked in zip(
            pq.read_table(cells).to_pylist(), decisions, is_masked, strict=True
        )
    ]
    write_parquet(folder / layout.CELLS, pa.Table.from_pylist(rows, schema=MASK_SCHEMA))
    finish(folder, "aggregate", f"{source} mask")
