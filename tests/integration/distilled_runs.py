"""A run whose scorer is distilled in a test, and other runs over it that differ in how it is asked.

300 steps of a mixture of experts of 0.2M parameters: enough to answer in the compact form, with
scores that differ, 10 (two tokens or one) and n/a among them; what they are worth does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml  # OmegaConf brings it
from smoke_runs import SMOKE, assert_done, mira

from mira_megatron.config import load_recipe
from mira_megatron.pipeline import run_stages
from mira_megatron.stage import Resources

GROUP = "qa-python"
NUM_RECORDS = 160
_SOURCE = "questions"
# Sections of the smoke recipe for what comes after the ratings.
_AFTER_SCORE = ("aggregate", "tokenize", "select", "arms", "blend", "midtrain", "instruct_sft")
_BEFORE_SCORE = ("ingest", "group", "discover", "anchor", "label", "sft-data", "distill")
_MODEL = {
    "num_layers": 2,
    "hidden_size": 64,
    "ffn_hidden_size": 128,
    "num_attention_heads": 2,  # of 32 dimensions each, the fewest that vLLM knows on a CPU
    "num_query_groups": 1,
    "num_moe_experts": 4,
    "moe_ffn_hidden_size": 64,
}
_TRAINING = {
    "micro_batch_size": 4,
    "global_batch_size": 4,
    "train_iters": 300,
    "learning_rate": 3e-3,
    "min_learning_rate": 3e-4,
    "warmup_iters": 10,
    "eval_interval": 300,
    "log_interval": 100,
    "save_interval": 300,
}


def write_distilling_recipe(path: Path) -> Path:
    """Writes a recipe over one source that goes up to its ratings, and returns the path."""
    recipe = yaml.safe_load(SMOKE.read_text())
    distill = recipe["distill"]
    recipe |= {
        "run_folder": str(path.with_suffix("")),
        "sources": {
            _SOURCE: {
                **recipe["sources"][_SOURCE],
                "group": GROUP,
                "max_chars": 1500,
                "max_records": NUM_RECORDS,
            }
        },
        "label": {"records_per_source": NUM_RECORDS, "reliability_fraction": 0.2},
        "distill": {
            **distill,
            "train_vocab_size": 1024,
            "validation_fraction": 0.05,
            "num_epochs": 50,
            "model": {**distill["model"], **_MODEL},
            "training": {**distill["training"], **_TRAINING},
        },
        "score": {"engine": "transformers", "answer_mode": "expected", "max_tokens": 400},
    }
    kept = {name: section for name, section in recipe.items() if name not in _AFTER_SCORE}
    path.write_text(yaml.safe_dump(kept))
    return path


def distilled(recipe: Path) -> Path:
    """Runs the recipe up to its scorer; returns the run folder."""
    run_stages(load_recipe(recipe), _BEFORE_SCORE, Resources())
    return recipe.with_suffix("")


def over(recipe: Path, name: str, score: Mapping[str, Any]) -> Path:
    """Writes a recipe that takes everything over from a run but its ratings, scored as told.

    Returns its path, once its run has what scoring reads.
    """
    values = yaml.safe_load(recipe.read_text())
    values["reuse"] = [values["run_folder"]]
    values["run_folder"] = str(recipe.parent / name)
    values["score"] = {**values["score"], **score}
    path = recipe.parent / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    run_stages(load_recipe(path), _BEFORE_SCORE, Resources())
    return path


def scored(recipe: Path) -> list[dict[str, Any]]:
    """Runs `mira score`; returns the ratings."""
    assert_done(mira("score", recipe))
    return ratings(recipe)


def ratings(recipe: Path) -> list[dict[str, Any]]:
    """Returns the rows that a run has, in order."""
    parts = sorted(recipe.with_suffix("").glob("ratings/*/*/part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]
