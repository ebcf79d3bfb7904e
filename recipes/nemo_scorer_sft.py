"""Full-parameter SFT of a source group's scorer with NeMo 2.7, for clusters that still run it.

    torchrun --nproc-per-node 8 recipes/nemo_scorer_sft.py --run-folder runs/code50b --rubric code \
        --group text-group1 --base /models/Qwen3-30B-A3B --weights nemo_weights/ --num-steps 900

The base weights are imported once by NeMo: `llm.import_ckpt(model, source="hf://...")`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import nemo_run as run

from mira_megatron.training.bridge_group import GroupFolders, link_data
from mira_megatron.training.bridge_layouts import H100_64, H200_8, H200_64, find_recipe
from mira_megatron.training.bridge_settings import ScorerSftPaths, ScorerSftSettings
from mira_megatron.training.nemo_config import nemo_scorer_sft

DEFAULT = "qwen3_30b_a3b_scorer_sft_8gpu_h200_bf16_config"


def qwen3_30b_a3b_scorer_sft_8gpu_h200_bf16_recipe() -> run.Partial:
    """Returns Qwen3-30B-A3B on one node of H200."""
    return nemo_scorer_sft(H200_8, ScorerSftSettings(), ScorerSftPaths())


def qwen3_30b_a3b_scorer_sft_64gpu_h200_bf16_recipe() -> run.Partial:
    """Returns Qwen3-30B-A3B on eight nodes of H200."""
    return nemo_scorer_sft(H200_64, ScorerSftSettings(), ScorerSftPaths())


def qwen3_30b_a3b_scorer_sft_64gpu_h100_bf16_recipe() -> run.Partial:
    """Returns Qwen3-30B-A3B on eight nodes of H100."""
    return nemo_scorer_sft(H100_64, ScorerSftSettings(), ScorerSftPaths())


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default=DEFAULT, help="whose layout is taken")
    parser.add_argument("--run-folder", required=True, type=Path)
    parser.add_argument("--rubric", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--base", required=True, type=Path, help="a Hugging Face folder")
    parser.add_argument("--weights", required=True, type=Path, help="the same, imported by NeMo")
    parser.add_argument("--num-steps", type=int, default=1000)
    return parser.parse_args()


def main() -> None:
    """Trains a group's scorer, in every process of torchrun."""
    arguments = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folders = GroupFolders(
        run_folder=arguments.run_folder, rubric=arguments.rubric, group=arguments.group
    )
    _, layout = find_recipe(arguments.config)
    paths = ScorerSftPaths(
        data=str(link_data(folders)),
        tokenizer=str(arguments.base),
        base=str(arguments.weights),
        checkpoints=str(folders.work / "nemo"),
    )
    recipe = nemo_scorer_sft(layout, ScorerSftSettings(num_steps=arguments.num_steps), paths)
    run.run(recipe, direct=True)


if __name__ == "__main__":
    main()
