"""Instruction tuning of Qwen2.5-Coder, the same for every arm, on a cluster, with Megatron-Bridge.

    R=qwen25_coder_14b_instruct_sft_8gpu_h200_bf16_config
    python recipes/instruct_sft.py data --config $R --run-folder runs/code50b --arm mira_group \
        --base runs/code50b/checkpoints/mira_group/hf --data /data/instructions.jsonl
    python recipes/instruct_sft.py import (the same)
    torchrun --nproc-per-node 8 recipes/instruct_sft.py train (the same)
    python recipes/instruct_sft.py export (the same)

Every step may be run again: what is done is left as it is. docs/midtraining.md says what each needs
and where its numbers come from.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from megatron.bridge.training.config import ConfigContainer
from megatron.bridge.training.finetune import finetune
from megatron.bridge.training.gpt_step import forward_step

from mira_megatron import layout as run_layout
from mira_megatron.training.arm_folders import ArmFolders
from mira_megatron.training.bridge_checkpoints import import_base
from mira_megatron.training.bridge_dense import instruct_sft_config
from mira_megatron.training.bridge_settings import (
    InstructSftChoices,
    ScorerSftPaths,
    with_learning_rate,
)
from mira_megatron.training.bridge_trained import export_trained
from mira_megatron.training.checkpoint_cut import require_same_cut
from mira_megatron.training.dense_layouts import (
    INSTRUCT_SFT,
    RECIPES,
    DenseRecipe,
    find_dense_recipe,
)
from mira_megatron.training.dense_models import of_base
from mira_megatron.training.instruct_data import (
    instruct_folders,
    instruct_steps,
    make_instruct_data,
)
from mira_megatron.training.trained_files import is_trained
from mira_megatron.training.training_commands import NOT_FINISHED


def qwen25_coder_14b_instruct_sft_8gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B on one node of H200."""
    return _default("qwen25_coder_14b_instruct_sft_8gpu_h200_bf16_config")


def qwen25_coder_14b_instruct_sft_8gpu_h100_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B on one node of H100."""
    return _default("qwen25_coder_14b_instruct_sft_8gpu_h100_bf16_config")


def qwen25_coder_14b_instruct_sft_64gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B on eight nodes of H200."""
    return _default("qwen25_coder_14b_instruct_sft_64gpu_h200_bf16_config")


def qwen25_coder_14b_instruct_sft_64gpu_h100_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-14B on eight nodes of H100."""
    return _default("qwen25_coder_14b_instruct_sft_64gpu_h100_bf16_config")


def qwen25_coder_1p5b_instruct_sft_8gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-1.5B on one node of H200."""
    return _default("qwen25_coder_1p5b_instruct_sft_8gpu_h200_bf16_config")


def qwen25_coder_1p5b_instruct_sft_8gpu_h100_bf16_config() -> ConfigContainer:
    """Returns Qwen2.5-Coder-1.5B on one node of H100."""
    return _default("qwen25_coder_1p5b_instruct_sft_8gpu_h100_bf16_config")


def arm_config(
    recipe: DenseRecipe, folders: ArmFolders, base_folder: Path, choices: InstructSftChoices
) -> ConfigContainer:
    """Returns one arm's config: a recipe with the instructions, base weights and checkpoints."""
    paths = ScorerSftPaths(
        data=str(folders.data),
        tokenizer=str(base_folder),
        base=str(folders.base),
        checkpoints=str(folders.checkpoints),
        tensorboard=str(folders.tensorboard),
    )
    return instruct_sft_config(of_base(recipe.model, base_folder), recipe.layout, choices, paths)


def _default(name: str) -> ConfigContainer:
    recipe = RECIPES[name]
    choices = InstructSftChoices(sequence_length=recipe.sequence_length)
    return instruct_sft_config(recipe.model, recipe.layout, choices, ScorerSftPaths())


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("data", "import", "train", "export"))
    parser.add_argument("--config", required=True, help="a recipe's name")
    parser.add_argument("--run-folder", required=True, type=Path)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--base", required=True, type=Path, help="a Hugging Face folder")
    parser.add_argument("--data", required=True, type=Path, action="append", help="a jsonl file")
    parser.add_argument("--num-epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--learning-rate", type=float)
    return parser.parse_args()


def main() -> int:
    """Makes the samples, imports the base, tunes an arm (under torchrun), or exports it.

    Returns 0, or NOT_FINISHED where the training did not reach its last step.
    """
    arguments = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = find_dense_recipe(arguments.config, INSTRUCT_SFT)
    choices = with_learning_rate(
        InstructSftChoices(sequence_length=recipe.sequence_length, seed=arguments.seed),
        arguments.learning_rate,
    )
    folders = instruct_folders(
        arguments.run_folder.resolve(),
        arguments.arm,
        recipe,
        arguments.base,
        choices,
        arguments.data,
        arguments.num_epochs,
    )
    tokenizer_file = arguments.base / run_layout.TOKENIZER_FILE
    if arguments.step == "data":
        make_instruct_data(folders, arguments.data, tokenizer_file)
        return 0
    if arguments.step == "import":
        import_base(recipe.model, arguments.base, folders.base)
        return 0
    choices = instruct_steps(choices, folders, arguments.num_epochs)
    if arguments.step == "train":
        if not is_trained(folders.checkpoints, choices.num_steps):
            require_same_cut(folders.checkpoints, recipe.layout)
            finetune(arm_config(recipe, folders, arguments.base, choices), forward_step)
        return 0
    if not is_trained(folders.checkpoints, choices.num_steps):
        return NOT_FINISHED
    export_trained(folders, recipe, arguments.base, choices.num_steps)
    return 0


if __name__ == "__main__":
    sys.exit(main())
