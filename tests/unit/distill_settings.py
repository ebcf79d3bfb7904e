"""A section `distill` so small that it trains in a second, and running its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mira_megatron.config import Recipe
from mira_megatron.manifest import Manifest
from mira_megatron.pipeline import stage_units
from mira_megatron.stage import Resources, Run, run_unit

MODEL: Mapping[str, Any] = {
    "num_layers": 1,
    "hidden_size": 32,
    "ffn_hidden_size": 32,
    "num_attention_heads": 2,
    "num_query_groups": 1,
    "rotary_base": 10000,
    "layernorm_epsilon": 1e-6,
    "tie_embeddings": True,
    "num_moe_experts": 2,
    "moe_router_topk": 2,
    "moe_ffn_hidden_size": 32,
    "moe_aux_loss_coeff": 0.001,
}
TRAINING: Mapping[str, Any] = {
    "micro_batch_size": 1,
    "global_batch_size": 1,
    "train_iters": 3,
    "learning_rate": 1e-3,
    "min_learning_rate": 1e-4,
    "warmup_iters": 1,
    "weight_decay": 0.1,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "clip_grad": 1.0,
    "eval_interval": 3,
    "log_interval": 1,
    "save_interval": 1,
}
COMPACT: Mapping[str, Any] = {
    "base": None,
    "train_vocab_size": 600,
    "prompt": "bare",
    "references": False,
    "answers": "compact",
    "max_record_tokens": 64,
    "sequence_length": 1024,
    "validation_fraction": 0.4,
    "num_epochs": 2,
    "model": dict(MODEL),
    "training": dict(TRAINING),
}


def with_distill(recipe: Recipe, **changed: Any) -> Recipe:
    """Returns the recipe with COMPACT and these changes as its section; None leaves one out."""
    section = {**COMPACT, **changed}
    for name in ("model", "training", "num_epochs"):
        if section[name] is None:
            del section[name]
    return replace(recipe, values={**recipe.values, "distill": section})


def from_base(recipe: Recipe, base: object, **training: Any) -> Recipe:
    """Returns the recipe with COMPACT on a base model, its training changed."""
    given = {**TRAINING, **training}
    return with_distill(recipe, base=str(base), train_vocab_size=None, model=None, training=given)


def done(recipe: Recipe, *stages: str) -> Manifest:
    """Runs these stages; returns the last unit's manifest."""
    run = Run(folder=recipe.run_folder)
    units = [unit for stage in stages for unit in stage_units(recipe, stage)]
    return [run_unit(unit, run, Resources()) for unit in units][-1]
