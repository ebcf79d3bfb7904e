"""Run by the nemo environment's Python.

nemo_probe.py config NAME...   recipes, built in full: what their objects hold
nemo_probe.py midtrain NAME... the same of recipes/nemo_midtrain.py
nemo_probe.py samples DATA TOKENIZER    what NeMo's own dataset makes of the jsonl
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import fiddle
import torch
from nemo.collections.llm.gpt.data.core import create_sft_dataset

from mira_megatron.training.bridge_layouts import H200_8
from mira_megatron.training.bridge_settings import (
    MidtrainChoices,
    MidtrainPaths,
    ScorerSftPaths,
    ScorerSftSettings,
)
from mira_megatron.training.dense_layouts import RECIPES
from mira_megatron.training.nemo_config import data_module
from mira_megatron.training.nemo_midtrain import nemo_midtrain


def built_recipe(name: str) -> dict[str, Any]:
    """Returns what a recipe's strategy, model config and optimizer hold once they are made."""
    recipe = getattr(importlib.import_module("nemo_scorer_sft"), name)()
    trainer = recipe.trainer
    strategy = fiddle.build(trainer.strategy)
    recipe.model.config.moe_permute_fusion = False  # asks for Transformer Engine's kernel
    model = fiddle.build(recipe.model.config)
    optimizer = fiddle.build(recipe.optim.config)
    return {
        "function": f"{recipe.__fn_or_cls__.__module__}.{recipe.__fn_or_cls__.__name__}",
        "gpus": trainer.devices * trainer.num_nodes,
        "parallel": [
            strategy.tensor_model_parallel_size,
            strategy.pipeline_model_parallel_size,
            strategy.context_parallel_size,
            strategy.expert_model_parallel_size,
        ],
        "average_in_collective": strategy.ddp_config.average_in_collective,
        "layers": model.num_layers,
        "experts": [model.num_moe_experts, model.moe_router_topk],
        "per_token_loss": model.calculate_per_token_loss,
        "sequence_length": [model.seq_length, recipe.data.seq_length],
        "rotary_base": model.rotary_base,
        "data": recipe.data.__fn_or_cls__.__name__,
        "dataset": recipe.data.dataset_kwargs,
        "tokenizer": [recipe.data.tokenizer.pretrained_model_name, recipe.data.tokenizer.eos_token],
        "learning_rate": optimizer.lr,
        "distributed_optimizer": optimizer.use_distributed_optimizer,
        "peft": getattr(recipe, "peft", None),
        "base": recipe.resume.restore_config.path,
    }


def built_midtrain(name: str) -> dict[str, Any]:
    """Returns what a mid-training recipe's objects hold once they are made."""
    recipe = getattr(importlib.import_module("nemo_midtrain"), name)()
    trainer = recipe.trainer
    strategy = fiddle.build(trainer.strategy)
    model = fiddle.build(recipe.model.config)
    optimizer = fiddle.build(recipe.optim.config)
    resume = fiddle.build(recipe.resume)
    return {
        "function": f"{recipe.__fn_or_cls__.__module__}.{recipe.__fn_or_cls__.__name__}",
        "gpus": trainer.devices * trainer.num_nodes,
        "steps": trainer.max_steps,
        "parallel": [
            strategy.tensor_model_parallel_size,
            strategy.pipeline_model_parallel_size,
            strategy.context_parallel_size,
        ],
        "sequence_parallel": strategy.sequence_parallel,
        "sizes": [model.num_layers, model.hidden_size, model.ffn_hidden_size, model.vocab_size],
        "tied": model.share_embeddings_and_output_weights,
        "epsilon": model.layernorm_epsilon,
        "sequence_length": model.seq_length,
        "rotary_base": model.rotary_base,
        "data": recipe.data.__fn_or_cls__.__name__,
        "blend": recipe.data.blend_folder,
        "global_batch_size": recipe.data.global_batch_size,
        "learning_rate": [optimizer.lr, recipe.optim.lr_scheduler.min_lr],
        "distributed_optimizer": optimizer.use_distributed_optimizer,
        "base": resume.restore_config.path,
    }


def refused_midtrain(name: str) -> str:
    """Returns what a recipe is refused for."""
    recipe = RECIPES[name]
    choices = MidtrainChoices(sequence_length=recipe.sequence_length)
    try:
        nemo_midtrain(recipe, choices, MidtrainPaths(), 10)
    except ValueError as error:
        return str(error)
    return "not refused"


def nemo_samples(data: str, tokenizer_folder: str) -> dict[str, Any]:
    """Returns the ids and loss masks that NeMo's dataset makes of a folder."""
    paths = ScorerSftPaths(data=data, tokenizer=tokenizer_folder)
    module = fiddle.build(data_module(H200_8, ScorerSftSettings(sequence_length=256), paths))
    dataset = create_sft_dataset(
        module.dataset_root / "training.jsonl",
        tokenizer=module.tokenizer,
        seq_length=module.seq_length,
        memmap_workers=1,
        **module.dataset_kwargs,
    )
    return {"samples": [_batch(dataset, index) for index in range(len(dataset))]}


def _batch(dataset: Any, index: int) -> dict[str, Any]:
    batch = dataset.collate_fn([dataset[index]])
    return {name: batch[name][0].tolist() for name in ("tokens", "labels", "loss_mask")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *arguments = sys.argv[1:]
    if what == "config":
        result: Any = {name: built_recipe(name) for name in arguments}
    elif what == "midtrain":
        *names, long = arguments
        result = {name: built_midtrain(name) for name in names}
        result["refused"] = refused_midtrain(long)
    else:
        result = nemo_samples(arguments[0], arguments[1])
    Path("result.json").write_text(json.dumps(result))
