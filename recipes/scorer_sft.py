"""Full-parameter SFT of a source group's scorer on a cluster, with Megatron-Bridge.

    python recipes/scorer_sft.py import --config qwen3_30b_a3b_scorer_sft_8gpu_h200_bf16_config \
        --run-folder runs/code50b --rubric code --group text-group1 --base /models/Qwen3-30B-A3B
    torchrun --nproc-per-node 8 recipes/scorer_sft.py train (the same) --num-steps 900
    python recipes/scorer_sft.py export (the same)

A recipe is a function without arguments that returns a ConfigContainer, as Bridge's own are; all
are one pure function with other values. docs/cluster-recipes.md says what each needs.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from megatron.bridge.training.config import ConfigContainer
from megatron.bridge.training.finetune import finetune
from megatron.bridge.training.gpt_step import forward_step

from mira_megatron.training.bridge_checkpoints import export_scorer, import_base
from mira_megatron.training.bridge_config import scorer_sft_config
from mira_megatron.training.bridge_group import GroupFolders, link_data
from mira_megatron.training.bridge_layouts import (
    H100_8,
    H100_64,
    H200_8,
    H200_64,
    ClusterLayout,
    find_recipe,
)
from mira_megatron.training.bridge_models import QWEN3_30B_A3B, QWEN35_35B_A3B, ClusterModel
from mira_megatron.training.bridge_settings import (
    ScorerSftPaths,
    ScorerSftSettings,
    with_learning_rate,
)
from mira_megatron.training.checkpoint_cut import require_same_cut
from mira_megatron.training.trained_files import is_trained
from mira_megatron.training.training_commands import NOT_FINISHED


def qwen3_30b_a3b_scorer_sft_8gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen3-30B-A3B on one node of H200."""
    return _default(QWEN3_30B_A3B, H200_8)


def qwen3_30b_a3b_scorer_sft_8gpu_h100_bf16_config() -> ConfigContainer:
    """Returns Qwen3-30B-A3B on one node of H100: gradients and moments in bfloat16."""
    return _default(QWEN3_30B_A3B, H100_8)


def qwen3_30b_a3b_scorer_sft_64gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen3-30B-A3B on eight nodes of H200."""
    return _default(QWEN3_30B_A3B, H200_64)


def qwen3_30b_a3b_scorer_sft_64gpu_h100_bf16_config() -> ConfigContainer:
    """Returns Qwen3-30B-A3B on eight nodes of H100."""
    return _default(QWEN3_30B_A3B, H100_64)


def qwen35_35b_a3b_scorer_sft_8gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen3.5-35B-A3B on one node of H200; one node of H100 has no room for it."""
    return _default(QWEN35_35B_A3B, H200_8)


def qwen35_35b_a3b_scorer_sft_64gpu_h200_bf16_config() -> ConfigContainer:
    """Returns Qwen3.5-35B-A3B on eight nodes of H200."""
    return _default(QWEN35_35B_A3B, H200_64)


def qwen35_35b_a3b_scorer_sft_64gpu_h100_bf16_config() -> ConfigContainer:
    """Returns Qwen3.5-35B-A3B on eight nodes of H100."""
    return _default(QWEN35_35B_A3B, H100_64)


def group_config(
    recipe: str, folders: GroupFolders, base_folder: Path, settings: ScorerSftSettings
) -> ConfigContainer:
    """Returns one source group's config: a recipe with the group's data, weights and checkpoints.

    Raises ValueError for an unknown recipe, FileNotFoundError where the group has no SFT data.
    """
    model, layout = find_recipe(recipe)
    paths = ScorerSftPaths(
        data=str(link_data(folders)),
        tokenizer=str(base_folder),
        base=str(folders.base),
        checkpoints=str(folders.checkpoints),
        tensorboard=str(folders.tensorboard),
    )
    return scorer_sft_config(model, layout, settings, paths)


def _default(model: ClusterModel, layout: ClusterLayout) -> ConfigContainer:
    return scorer_sft_config(model, layout, ScorerSftSettings(), ScorerSftPaths())


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=("import", "train", "export"))
    parser.add_argument("--config", required=True, help="a recipe's name")
    parser.add_argument("--run-folder", required=True, type=Path)
    parser.add_argument("--rubric", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--base", required=True, type=Path, help="a Hugging Face folder")
    parser.add_argument(
        "--num-steps", type=int, help="default: 1000; export asks for them if given"
    )
    parser.add_argument("--learning-rate", type=float, help="default: 1e-5")
    return parser.parse_args()


def main() -> int:
    """Imports the base model, trains a group's scorer (under torchrun), or exports it.

    Returns 0, or NOT_FINISHED where an export is to be of --num-steps and training has taken fewer.
    """
    arguments = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folders = GroupFolders(
        run_folder=arguments.run_folder, rubric=arguments.rubric, group=arguments.group
    )
    settings = with_learning_rate(
        ScorerSftSettings(num_steps=arguments.num_steps or 1000), arguments.learning_rate
    )
    is_done = arguments.num_steps is not None and is_trained(
        folders.checkpoints, arguments.num_steps
    )
    match arguments.step:
        case "import":
            model, _ = find_recipe(arguments.config)
            import_base(model, arguments.base, folders.base)
        case "train" if not is_done:
            require_same_cut(folders.checkpoints, find_recipe(arguments.config)[1])
            finetune(
                group_config(arguments.config, folders, arguments.base, settings), forward_step
            )
        case "export":
            if arguments.num_steps is not None and not is_done:
                return NOT_FINISHED
            export_scorer(arguments.base, folders.checkpoints, folders.export)
    return 0


if __name__ == "__main__":
    sys.exit(main())
