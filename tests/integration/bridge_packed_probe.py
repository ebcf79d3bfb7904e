"""Run by the bridge environment's Python, under bridge_stand_ins.py.

bridge_packed_probe.py DATA TOKENIZER    what a training reads, and one that was preempted
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from megatron.bridge.data import loaders
from megatron.bridge.data.samplers import build_pretraining_data_loader
from megatron.bridge.data.utils import get_dataset_provider
from megatron.bridge.training.config import runtime_config_update
from megatron.bridge.training.tokenizers.tokenizer import build_tokenizer

from mira_megatron.training.bridge_dense import instruct_sft_config
from mira_megatron.training.bridge_settings import InstructSftChoices, ScorerSftPaths
from mira_megatron.training.dense_layouts import RECIPES

BATCH, STEPS, SECONDS = 4, 9, 200
RECIPE = RECIPES["qwen25_coder_1p5b_instruct_sft_8gpu_h200_bf16_config"]


def read(data: str, tokenizer: str) -> dict[str, Any]:
    """Returns the tokens of every step and evaluation, from the start and from each later one."""
    choices = InstructSftChoices(
        sequence_length=64, num_steps=STEPS, validate_every_steps=2, num_validation_steps=2
    )
    layout = replace(RECIPE.layout, num_gpus=2, global_batch_size=BATCH)
    paths = ScorerSftPaths(data=data, tokenizer=tokenizer)
    config = instruct_sft_config(RECIPE.model, layout, choices, paths)
    runtime_config_update(config)
    made = build_tokenizer(config.tokenizer)
    provider = partial(get_dataset_provider(config.dataset), tokenizer=made)
    train, valid, _ = loaders.build_train_valid_test_datasets(config, provider)
    num_evaluated = (STEPS // 2 + 1) * 2
    return {
        "num_packs": [len(each.indexed_dataset) for each in (train, valid.dataset)],
        "train": [_from(config, train, done, STEPS) for done in range(STEPS)],
        "valid": [_from(config, valid, done, num_evaluated) for done in range(num_evaluated)],
    }


def _from(config: Any, dataset: Any, num_done: int, num_steps: int) -> list[list[list[int]]]:
    loader = build_pretraining_data_loader(
        dataset,
        num_done * BATCH,
        config.dataset.dataloader_type,
        1,
        0,
        True,
        collate_fn=dataset.collate_fn,
        pin_memory=False,
        global_batch_size=BATCH,
    )
    # As Bridge does, and for as long as it asks: without a batch this never comes back.
    batches = islice(loaders.cyclic_iter(loader), num_steps - num_done)
    return [batch["tokens"].tolist() for batch in batches]


if __name__ == "__main__":
    signal.alarm(SECONDS)
    torch.set_num_threads(1)
    os.environ["WORLD_SIZE"] = "2"  # of context parallelism
    Path("result.json").write_text(json.dumps(read(*sys.argv[1:])))
