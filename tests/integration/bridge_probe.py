"""Run by the bridge environment's Python, under bridge_stand_ins.py.

bridge_probe.py config NAME...    one recipe after the other, built and validated by Bridge
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
from megatron.bridge.data.builders.finetuning_dataset import FinetuningDatasetBuilder
from megatron.bridge.training.config import runtime_config_update
from megatron.bridge.training.tokenizers.tokenizer import build_tokenizer

from mira_megatron.training.bridge_config import dataset_config, tokenizer_config
from mira_megatron.training.bridge_layouts import ClusterLayout, find_recipe
from mira_megatron.training.bridge_settings import ScorerSftPaths, ScorerSftSettings


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
    else:
        result = bridge_samples(arguments[0], arguments[1], int(arguments[2]))
    Path("result.json").write_text(json.dumps(result))
