"""Continued training of Qwen2.5-Coder on an arm's blend, on a cluster, with Megatron-Bridge.

    python recipes/midtrain.py import --config qwen25_coder_14b_midtrain_64gpu_h200_bf16_config \
        --run-folder runs/code50b --arm mira_group --base /models/Qwen2.5-Coder-14B
    torchrun --nproc-per-node 8 recipes/midtrain.py train (the same)
    python recipes/midtrain.py export (the same)

A recipe is a function without arguments that returns a ConfigContainer, as Bridge's own are; all
are one pure function with other values. Every step may be run again: what is done is left as it is.
docs/midtraining.md says what each needs and where its numbers come from.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from megatron.bridge.training.config import ConfigContainer
from megatron.bridge.training.gpt_step import forward_step
from megatron.bridge.training.pretrain import pretrain

from mira_megatron import layout as run_layout
from mira_megatron.tokenization.blend_files import read_blend
from mira_megatron.training.arm_folders import ArmFolders, midtrain_folders
from mira_megatron.training.bridge_blend import refuse_lost_mask, use_blend
from mira_megatron.training.bridge_checkpoints import import_base
from mira_megatron.training.bridge_dense import midtrain_config
from mira_megatron.training.bridge_settings import (
    MidtrainChoices,
    MidtrainPaths,
    with_learning_rate,
)
from mira_megatron.training.bridge_trained import export_trained
from mira_megatron.training.checkpoint_cut import require_same_cut
from mira_megatron.training.dense_layouts import MIDTRAIN, RECIPES, DenseRecipe, find_dense_recipe
from mira_megatron.training.dense_models import of_base
from mira_megatron.training.midtrain_blend import check_blend, num_steps
from mira_megatron.training.trained_files import is_trained
from mira_megatron.training.training_commands import NOT_FINISHED

logger = logging.getLogger(__name__)


def qwen25_coder_14b_midtrain_8gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B with 32,768 tokens on one node of H200."""
    return _default("qwen25_coder_14b_midtrain_8gpu_h200_bf16_config")


def qwen25_coder_14b_midtrain_8gpu_h100_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B with 32,768 tokens on one node of H100."""
    return _default("qwen25_coder_14b_midtrain_8gpu_h100_bf16_config")


def qwen25_coder_14b_midtrain_64gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B with 32,768 tokens on eight nodes of H200."""
    return _default("qwen25_coder_14b_midtrain_64gpu_h200_bf16_config")


def qwen25_coder_14b_midtrain_64gpu_h100_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B with 32,768 tokens on eight nodes of H100."""
    return _default("qwen25_coder_14b_midtrain_64gpu_h100_bf16_config")


def qwen25_coder_14b_midtrain_128k_8gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B with 131,072 tokens and YaRN on one node of H200."""
    return _default("qwen25_coder_14b_midtrain_128k_8gpu_h200_bf16_config")


def qwen25_coder_14b_midtrain_128k_8gpu_h100_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B with 131,072 tokens and YaRN on one node of H100."""
    return _default("qwen25_coder_14b_midtrain_128k_8gpu_h100_bf16_config")


def qwen25_coder_14b_midtrain_128k_64gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B with 131,072 tokens and YaRN on eight nodes of H200."""
    return _default("qwen25_coder_14b_midtrain_128k_64gpu_h200_bf16_config")


def qwen25_coder_14b_midtrain_128k_64gpu_h100_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B with 131,072 tokens and YaRN on eight nodes of H100."""
    return _default("qwen25_coder_14b_midtrain_128k_64gpu_h100_bf16_config")


def qwen25_coder_1p5b_midtrain_8gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-1.5B with 32,768 tokens on one node of H200."""
    return _default("qwen25_coder_1p5b_midtrain_8gpu_h200_bf16_config")


def qwen25_coder_1p5b_midtrain_8gpu_h100_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-1.5B with 32,768 tokens on one node of H100."""
    return _default("qwen25_coder_1p5b_midtrain_8gpu_h100_bf16_config")


def arm_config(
    recipe: DenseRecipe, folders: ArmFolders, base_folder: Path, choices: MidtrainChoices
) -> ConfigContainer:
    """Returns one arm's config: a recipe with the arm's blend, base weights and checkpoints.

    Its steps are one pass over what was selected. Raises ValueError for a blend that this recipe
    cannot be trained on.
    """
    blend_folder = folders.run_folder / run_layout.blend(folders.arm)
    paths = MidtrainPaths(
        blend=str(blend_folder),
        index_cache=str(folders.index_cache),
        tokenizer=str(base_folder),
        base=str(folders.base),
        checkpoints=str(folders.checkpoints),
        tensorboard=str(folders.tensorboard),
    )
    config = midtrain_config(of_base(recipe.model, base_folder), recipe.layout, choices, paths)
    use_blend(config, blend_folder, cache_folder=folders.index_cache)
    refuse_lost_mask(config.dataset)
    config.scheduler.lr_decay_iters = config.train.train_iters
    config.scheduler.lr_warmup_iters = round(config.train.train_iters * choices.warmup_fraction)
    return config


def _default(name: str) -> ConfigContainer:
    recipe = RECIPES[name]
    choices = MidtrainChoices(sequence_length=recipe.sequence_length)
    return midtrain_config(recipe.model, recipe.layout, choices, MidtrainPaths())


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("import", "train", "export"))
    parser.add_argument("--config", required=True, help="a recipe's name")
    parser.add_argument("--run-folder", required=True, type=Path)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--base", required=True, type=Path, help="a Hugging Face folder")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--learning-rate", type=float)
    return parser.parse_args()


def main() -> int:
    """Imports the base model, trains an arm (under torchrun), or exports it.

    Returns 0, or NOT_FINISHED where the training did not reach its last step.
    """
    arguments = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = find_dense_recipe(arguments.config, MIDTRAIN)
    choices = with_learning_rate(
        MidtrainChoices(sequence_length=recipe.sequence_length, seed=arguments.seed),
        arguments.learning_rate,
    )
    run_folder = arguments.run_folder.resolve()
    folders = midtrain_folders(run_folder, arguments.arm, recipe, arguments.base, choices)
    blend = read_blend(run_folder / run_layout.blend(arguments.arm))
    check_blend(blend, recipe, arguments.base)
    steps = num_steps(blend, recipe)
    match arguments.step:
        case "import":
            import_base(recipe.model, arguments.base, folders.base)
        case "train" if not is_trained(folders.checkpoints, steps):
            require_same_cut(folders.checkpoints, recipe.layout)
            pretrain(arm_config(recipe, folders, arguments.base, choices), forward_step)
        case "export":
            if not is_trained(folders.checkpoints, steps):
                return NOT_FINISHED
            export_trained(folders, recipe, arguments.base, steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
