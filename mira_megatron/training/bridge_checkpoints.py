"""Weights between Hugging Face folders and Megatron checkpoints, by Bridge's AutoBridge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from megatron.bridge import AutoBridge, __version__

from mira_megatron.atomic_files import write_bytes
from mira_megatron.file_lock import waited_lock
from mira_megatron.training.bridge_models import ClusterModel
from mira_megatron.training.bridge_versions import require_bridge
from mira_megatron.training.trained_files import LATEST, iteration_folder, reached_step

_EXPORTED = "exported_step.txt"  # in a scorer's export, written last
# Of config.json: what must be the recipe's, or weights would not fit.
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_experts",
    "num_hidden_layers",
    "num_key_value_heads",
    "tie_word_embeddings",
    "vocab_size",
)


def import_base(model: ClusterModel, base_folder: Path, megatron_folder: Path) -> None:
    """Writes a base model's weights as a Megatron checkpoint; a finished one is left as it is.

    Runs in one process, on the CPU, and takes memory for the weights twice; another that imports
    the same at the same time waits. Raises ValueError where Megatron-Bridge is too old for the
    model or the folder holds another one.
    """
    require_bridge(model, __version__)
    require_model(model, base_folder)
    with waited_lock(megatron_folder.with_name(f".{megatron_folder.name}.lock")):
        if not (megatron_folder / LATEST).is_file():
            AutoBridge.import_ckpt(
                str(base_folder), str(megatron_folder), torch_dtype=torch.bfloat16
            )


def export_scorer(base_folder: Path, megatron_folder: Path, export_folder: Path) -> None:
    """Writes a trained scorer as a Hugging Face folder, with the base model's config and tokenizer.

    A whole export of the newest checkpoint is left as it is. Raises FileNotFoundError where nothing
    was trained yet.
    """
    reached = reached_step(megatron_folder)
    if reached == 0:
        raise FileNotFoundError(
            f"{megatron_folder / LATEST}: there is no checkpoint to export. Train first."
        )
    done = export_folder / _EXPORTED
    if done.is_file() and done.read_text() == f"{reached}\n":
        return
    export_weights(base_folder, iteration_folder(megatron_folder, reached), export_folder)
    write_bytes(done, f"{reached}\n".encode())


def export_weights(base_folder: Path, checkpoint: Path, export_folder: Path) -> None:
    """Writes one checkpoint as a Hugging Face folder, with the base's config and tokenizer."""
    bridge = AutoBridge.from_hf_pretrained(str(base_folder), torch_dtype=torch.bfloat16)
    shutil.rmtree(export_folder, ignore_errors=True)  # shards of an interrupted export
    bridge.export_ckpt(str(checkpoint), str(export_folder), strict=True)


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
    for name in _SIZES:
        wanted = model.hf_config.get(name)
        # What a config.json leaves out is transformers' default: embeddings that are not tied.
        found = config.get(name, False if name == "tie_word_embeddings" else None)
        if wanted is not None and found != wanted:
            raise ValueError(
                f"{path}: {name}={found}, but {model.name} has {wanted}. Give the base model that "
                "the recipe is named after."
            )
