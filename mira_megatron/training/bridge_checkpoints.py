"""Weights between Hugging Face folders and Megatron checkpoints, by Bridge's AutoBridge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from megatron.bridge import AutoBridge, __version__

from mira_megatron.training.bridge_models import ClusterModel
from mira_megatron.training.bridge_versions import require_bridge

# What Megatron writes into a checkpoint folder last.
LATEST = "latest_checkpointed_iteration.txt"


def import_base(model: ClusterModel, base_folder: Path, megatron_folder: Path) -> None:
    """Writes a base model's weights as a Megatron checkpoint; a finished one is left as it is.

    Runs in one process, on the CPU, and takes memory for the weights twice. Raises ValueError where
    Megatron-Bridge is too old for the model or the folder holds another one.
    """
    require_bridge(model, __version__)
    require_model(model, base_folder)
    if not (megatron_folder / LATEST).is_file():
        AutoBridge.import_ckpt(str(base_folder), str(megatron_folder), torch_dtype=torch.bfloat16)


def export_scorer(base_folder: Path, megatron_folder: Path, export_folder: Path) -> None:
    """Writes a trained scorer as a Hugging Face folder, with the base model's config and tokenizer.

    Raises FileNotFoundError where nothing was trained yet.
    """
    if not (megatron_folder / LATEST).is_file():
        raise FileNotFoundError(
            f"{megatron_folder / LATEST}: there is no checkpoint to export. Train first."
        )
    bridge = AutoBridge.from_hf_pretrained(str(base_folder), torch_dtype=torch.bfloat16)
    shutil.rmtree(export_folder, ignore_errors=True)  # shards of an interrupted export
    bridge.export_ckpt(str(megatron_folder), str(export_folder), strict=True)


def require_model(model: ClusterModel, base_folder: Path) -> None:
    """Raises ValueError where a folder's config.json is of another architecture than the recipe.

    A vision-language release keeps the text model's values in `text_config`; its text part is to be
    saved by itself first.
    """
    path = base_folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not a Hugging Face model. Give the folder with --base.")
    config = json.loads(path.read_bytes())
    if config.get("architectures") != model.hf_config["architectures"]:
        raise ValueError(
            f"{path}: architectures={config.get('architectures')}, but {model.name} is "
            f"{model.hf_config['architectures']}. docs/cluster-recipes.md says how the text part "
            "of a vision-language model is saved."
        )
    for name in ("hidden_size", "num_hidden_layers", "num_experts", "vocab_size"):
        if config.get(name) != model.hf_config[name]:
            raise ValueError(
                f"{path}: {name}={config.get(name)}, but {model.name} has {model.hf_config[name]}. "
                "Give the base model that the recipe is named after."
            )
