"""Continued training of Qwen2.5-Coder on an arm's blend with NeMo 2.7, for clusters that run it.

    R=qwen25_coder_14b_midtrain_8gpu_h200_bf16_config
    torchrun --nproc-per-node 8 recipes/nemo_midtrain.py --config $R --run-folder runs/code50b \
        --arm mira_group --base /models/Qwen2.5-Coder-14B --weights nemo_weights/

The base weights are imported once by NeMo: `llm.import_ckpt(model, source="hf://...")`.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import nemo_run as run

from mira_megatron import layout as run_layout
from mira_megatron.tokenization.blend_files import read_blend
from mira_megatron.training.arm_folders import midtrain_folders
from mira_megatron.training.bridge_settings import (
    MidtrainChoices,
    MidtrainPaths,
    with_learning_rate,
)
from mira_megatron.training.dense_layouts import MIDTRAIN, RECIPES, find_dense_recipe
from mira_megatron.training.dense_models import of_base
from mira_megatron.training.midtrain_blend import check_blend, num_steps
from mira_megatron.training.nemo_midtrain import nemo_midtrain


def qwen25_coder_14b_midtrain_8gpu_h200_bf16_recipe() -> run.Partial:
    """Returns Qwen2.5-Coder-14B with 32,768 tokens on one node of H200."""
    return _default("qwen25_coder_14b_midtrain_8gpu_h200_bf16_config")


def qwen25_coder_14b_midtrain_8gpu_h100_bf16_recipe() -> run.Partial:
    """Returns Qwen2.5-Coder-14B with 32,768 tokens on one node of H100."""
    return _default("qwen25_coder_14b_midtrain_8gpu_h100_bf16_config")


def qwen25_coder_14b_midtrain_64gpu_h200_bf16_recipe() -> run.Partial:
    """Returns Qwen2.5-Coder-14B with 32,768 tokens on eight nodes of H200."""
    return _default("qwen25_coder_14b_midtrain_64gpu_h200_bf16_config")


def qwen25_coder_14b_midtrain_64gpu_h100_bf16_recipe() -> run.Partial:
    """Returns Qwen2.5-Coder-14B with 32,768 tokens on eight nodes of H100."""
    return _default("qwen25_coder_14b_midtrain_64gpu_h100_bf16_config")


def qwen25_coder_1p5b_midtrain_8gpu_h200_bf16_recipe() -> run.Partial:
    """Returns Qwen2.5-Coder-1.5B with 32,768 tokens on one node of H200."""
    return _default("qwen25_coder_1p5b_midtrain_8gpu_h200_bf16_config")


def _default(name: str) -> run.Partial:
    recipe = RECIPES[name]
    choices = MidtrainChoices(sequence_length=recipe.sequence_length)
    return nemo_midtrain(recipe, choices, MidtrainPaths(), num_steps=choices.num_steps)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", required=True, help="whose model and layout are taken")
    parser.add_argument("--run-folder", required=True, type=Path)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--base", required=True, type=Path, help="a Hugging Face folder")
    parser.add_argument("--weights", required=True, type=Path, help="the same, imported by NeMo")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--learning-rate", type=float)
    return parser.parse_args()


def main() -> None:
    """Trains an arm, in every process of torchrun."""
    arguments = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = find_dense_recipe(arguments.config, MIDTRAIN)
    recipe = replace(found, model=of_base(found.model, arguments.base))
    choices = with_learning_rate(
        MidtrainChoices(sequence_length=recipe.sequence_length, seed=arguments.seed),
        arguments.learning_rate,
    )
    run_folder = arguments.run_folder.resolve()
    folders = midtrain_folders(run_folder, arguments.arm, recipe, arguments.base, choices)
    blend_folder = run_folder / run_layout.blend(arguments.arm)
    blend = read_blend(blend_folder)
    check_blend(blend, recipe, arguments.base)
    paths = MidtrainPaths(
        blend=str(blend_folder),
        index_cache=str(folders.index_cache),
        tokenizer=str(arguments.base),
        base=str(arguments.weights),
        checkpoints=str(folders.checkpoints.with_name(f"nemo-{folders.identity.digest}")),
    )
    run.run(nemo_midtrain(recipe, choices, paths, num_steps(blend, recipe)), direct=True)


if __name__ == "__main__":
    main()
