"""Run by the bridge environment's Python, under bridge_stand_ins.py.

bridge_probe.py config NAME...    one recipe after the other, built and validated by Bridge
bridge_probe.py dense NAME...     the same of recipes/midtrain.py and recipes/instruct_sft.py
bridge_probe.py arm RUN_FOLDER BASE LEARNING_RATE    the config of arm early on its blend
bridge_probe.py samples DATA TOKENIZER CP    what Bridge's own datasets make of the jsonl
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from megatron.bridge.data.builders.finetuning_dataset import FinetuningDatasetBuilder
from megatron.bridge.training.config import GPTDatasetConfig, runtime_config_update
from megatron.bridge.training.tokenizers.tokenizer import build_tokenizer
from megatron.bridge.utils.instantiate_utils import instantiate
from megatron.core.models.common.embeddings import yarn_rotary_pos_embedding as yarn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mira_megatron.doctor.checks import check_config
from mira_megatron.training.arm_folders import midtrain_folders
from mira_megatron.training.bridge_attention import refuse_silent_attention
from mira_megatron.training.bridge_config import dataset_config, tokenizer_config
from mira_megatron.training.bridge_layouts import ClusterLayout, find_recipe, memory_per_gpu
from mira_megatron.training.bridge_settings import (
    MidtrainChoices,
    ScorerSftPaths,
    ScorerSftSettings,
    with_learning_rate,
)
from mira_megatron.training.dense_layouts import RECIPES
from mira_megatron.training.dense_models import (
    CARD_YARN,
    LONG_CONTEXT,
    QWEN25_CODER_14B,
    at_length,
)


def built_recipe(name: str) -> dict[str, Any]:
    """Returns what Bridge holds of a recipe after its own checks, or the error in its place."""
    _, layout = find_recipe(name)
    os.environ["WORLD_SIZE"] = str(layout.num_gpus)
    try:
        config = getattr(importlib.import_module("scorer_sft"), name)()
    except ValueError as error:
        return {"error": str(error)}
    runtime_config_update(config)
    model, data = config.model, config.dataset
    return {
        "kind": type(config).__name__,
        "data_parallel": config.data_parallel_size,
        "parallel": [
            model.tensor_model_parallel_size,
            model.pipeline_model_parallel_size,
            model.context_parallel_size,
            model.expert_model_parallel_size,
        ],
        "sequence_length": [
            model.seq_length,
            data.seq_length,
            data.packed_sequence_specs.packed_sequence_size,
        ],
        "pad_to": data.packed_sequence_specs.pad_seq_to_mult,
        "dataset": data.dataset_kwargs,
        "tokenizer": [config.tokenizer.tokenizer_type, config.tokenizer.tokenizer_model],
        "eos": config.tokenizer.hf_tokenizer_kwargs["eos_token"],
        "layers": model.num_layers,
        "experts": [model.num_moe_experts, model.moe_router_topk],
        "moe": [model.moe_grouped_gemm, model.moe_token_dispatcher_type, model.moe_aux_loss_coeff],
        "bf16": [model.bf16, config.optimizer.bf16],
        "moments": str(config.optimizer.exp_avg_dtype),
        "grad_reduce_in_fp32": config.ddp.grad_reduce_in_fp32,
        "distributed_optimizer": config.optimizer.use_distributed_optimizer,
        "peft": config.peft,
        "rotary_base": model.rotary_base,
    }


def built_dense(name: str) -> dict[str, Any]:
    """Returns what Bridge holds of a dense recipe after its own checks."""
    recipe = RECIPES[name]
    os.environ["WORLD_SIZE"] = str(recipe.layout.num_gpus)
    config = getattr(importlib.import_module(recipe.task), name)()
    runtime_config_update(config)
    refuse_silent_attention(config)
    # As a checkpoint's run_config.yaml holds it, and an export makes the model again.
    model = instantiate(config.to_dict()["model"])
    packing = getattr(config.dataset, "packed_sequence_specs", None)
    return {
        "parallel": [
            model.tensor_model_parallel_size,
            model.pipeline_model_parallel_size,
            model.context_parallel_size,
        ],
        "sequence_parallel": model.sequence_parallel,
        "data_parallel": config.data_parallel_size,
        "sequence_length": model.seq_length,
        "packed": None if packing is None else packing.packed_sequence_size,
        "dataset": type(config.dataset).__name__,
        "answer_only_loss": getattr(config.dataset, "dataset_kwargs", {}).get("answer_only_loss"),
        "sizes": [
            model.num_layers,
            model.hidden_size,
            model.ffn_hidden_size,
            model.num_attention_heads,
            model.num_query_groups,
            model.vocab_size,
        ],
        "tied": model.share_embeddings_and_output_weights,
        "qkv_bias": model.add_qkv_bias,
        "epsilon": model.layernorm_epsilon,
        "rotary_base": model.rotary_base,
        "positions": model.position_embedding_type,
        "yarn": {
            field: getattr(model, field, None)
            for field in (
                "yarn_rotary_scaling_factor",
                "yarn_original_max_position_embeddings",
                "yarn_beta_fast",
                "yarn_beta_slow",
                "yarn_correction_range_round_to_int",
            )
        },
        "learning_rate": [config.optimizer.lr, config.optimizer.min_lr],
        "global_batch_size": config.train.global_batch_size,
        "eos": config.tokenizer.hf_tokenizer_kwargs["eos_token"],
        "moments": str(config.optimizer.exp_avg_dtype),
        "pretrained": config.checkpoint.pretrained_checkpoint,
        "peft": config.peft,
        "found": [[each.level, each.what] for each in check_config(config, recipe.layout.num_gpus)],
        "memory": memory_per_gpu(
            at_length(recipe.model, recipe.sequence_length), recipe.layout, recipe.sequence_length
        ).total,
    }


def built_arm(run_folder: str, base: str, learning_rate: str) -> dict[str, Any]:
    """Returns what recipes/midtrain.py trains an arm with, after Bridge's own checks."""
    recipe = RECIPES["qwen25_coder_14b_midtrain_64gpu_h200_bf16_config"]
    os.environ["WORLD_SIZE"] = str(recipe.layout.num_gpus)
    choices = with_learning_rate(
        MidtrainChoices(sequence_length=32768, seed=7), float(learning_rate)
    )
    folders = midtrain_folders(Path(run_folder), "early", recipe, Path(base), choices)
    script = importlib.import_module("midtrain")
    config = script.arm_config(recipe, folders, Path(base), choices)
    runtime_config_update(config)
    return {
        "steps": [
            config.train.train_iters,
            config.scheduler.lr_decay_iters,
            config.scheduler.lr_warmup_iters,
        ],
        "learning_rate": [config.optimizer.lr, config.optimizer.min_lr],
        "epsilon": config.model.layernorm_epsilon,
        "blend": config.dataset.blend_folder,
        "checkpoint": [
            config.checkpoint.save,
            config.checkpoint.load,
            config.checkpoint.pretrained_checkpoint,
        ],
        "seeds": [config.rng.seed, config.dataset.seed],
    }


def silent_attention(name: str) -> dict[str, Any]:
    """Returns what Bridge's own dataset config is refused for after Bridge has taken it."""
    os.environ["WORLD_SIZE"] = str(RECIPES[name].layout.num_gpus)
    config = getattr(importlib.import_module("midtrain"), name)()
    settings = {"random_seed": 1, "eod_mask_loss": False, "dataloader_type": "single"}
    refused: dict[str, str | None] = {}
    for what, reset in {
        "none": (False, False, True),
        "mask_dropped": (True, False, True),
        "mask_made": (True, False, False),
        "positions": (False, True, True),
    }.items():
        config.dataset = GPTDatasetConfig(
            seq_length=config.model.seq_length,
            reset_attention_mask=reset[0],
            reset_position_ids=reset[1],
            skip_getting_attention_mask_from_dataset=reset[2],
            **settings,
        )
        runtime_config_update(config)  # Bridge says nothing
        try:
            refuse_silent_attention(config)
            refused[what] = None
        except ValueError as error:
            refused[what] = str(error)
    return refused


def yarn_frequencies() -> dict[str, list[float]]:
    """Returns rotary frequencies and their factor, of megatron-core and of transformers."""
    values = at_length(QWEN25_CODER_14B, LONG_CONTEXT).hf_config
    scaling, head = values["rope_scaling"], values["head_dim"]
    base, factor = values["rope_theta"], scaling["factor"]
    low, high = yarn._yarn_find_correction_range(
        scaling["beta_fast"],
        scaling["beta_slow"],
        head,
        base,
        scaling["original_max_position_embeddings"],
        scaling["truncate"],
    )
    extrapolated = 1.0 / base ** (torch.arange(0, head, 2, dtype=torch.float32) / head)
    own = 1.0 - yarn._yarn_linear_ramp_mask(low, high, head // 2, torch.device("cpu"))
    ours = extrapolated / factor * (1 - own) + extrapolated * own
    card = {**values, "rope_scaling": dict(CARD_YARN)}  # what a reader of the card gives
    theirs, attention = ROPE_INIT_FUNCTIONS["yarn"](transformers.Qwen2Config(**card), "cpu")
    return {
        "ours": [*ours.tolist(), yarn._yarn_get_concentration_factor(factor, None, None)],
        "theirs": [*theirs.tolist(), attention],
    }


def bridge_samples(data: str, tokenizer_folder: str, context_parallel: int) -> dict[str, Any]:
    """Returns the ids and loss masks that Bridge's datasets make of a folder, packed and not."""
    layout = ClusterLayout(
        num_gpus=context_parallel,
        gpu="h200",
        context_parallel=context_parallel,
        expert_parallel=1,
        global_batch_size=1,
    )
    tokenizer = build_tokenizer(tokenizer_config(tokenizer_folder))
    given = dataset_config(
        layout, ScorerSftSettings(sequence_length=256), ScorerSftPaths(data=data)
    )
    builder = FinetuningDatasetBuilder(
        dataset_root=given.dataset_root,
        tokenizer=tokenizer,
        seq_length=given.seq_length,
        seed=given.seed,
        packed_sequence_specs=given.packed_sequence_specs,
        dataset_kwargs=given.dataset_kwargs,
        do_validation=given.do_validation,
        do_test=given.do_test,
    )
    packed, _, _ = builder.build()
    unpacked = _plain_dataset(builder)
    return {
        "eos": tokenizer.eos_id,
        "unpacked": [_batch(unpacked, index) for index in range(len(unpacked))],
        "packed": [_batch(packed, index) for index in range(len(packed))],
    }


def _plain_dataset(builder: Any) -> Any:
    """Returns Bridge's GPTSFTDataset of the training file, with the same settings."""
    plain = FinetuningDatasetBuilder(
        dataset_root=builder.dataset_root,
        tokenizer=builder.tokenizer,
        seq_length=builder.seq_length,
        dataset_kwargs=builder.dataset_kwargs,
        do_validation=False,
        do_test=False,
    )
    return plain.build()[0]


def _batch(dataset: Any, index: int) -> dict[str, Any]:
    batch = dataset.collate_fn([dataset[index]])
    result = {name: batch[name][0].tolist() for name in ("tokens", "labels", "loss_mask")}
    if "cu_seqlens" in batch:
        result["cu_seqlens"] = batch["cu_seqlens"][0].tolist()
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *arguments = sys.argv[1:]
    if what == "config":
        result: Any = {name: built_recipe(name) for name in arguments}
    elif what == "dense":
        result = {name: built_dense(name) for name in arguments}
        result["yarn"] = yarn_frequencies()
        result["silent"] = silent_attention(arguments[0])
    elif what == "arm":
        result = built_arm(*arguments)
    else:
        result = bridge_samples(arguments[0], arguments[1], int(arguments[2]))
    Path("result.json").write_text(json.dumps(result))
