"""A run whose blend is done, and what a cluster would leave of its training: made for tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.manifest import Counts, Manifest, list_parts, output_digest, write_manifest
from mira_megatron.training.arm_folders import ArmFolders
from mira_megatron.training.cluster_midtrain import arm_folders, cluster_arms
from mira_megatron.training.trained_files import LATEST, Trained, json_of

CONFIG = "qwen25_coder_14b_midtrain_64gpu_h200_bf16_config"
SFT_CONFIG = "qwen25_coder_14b_instruct_sft_8gpu_h200_bf16_config"
EOD = 151643
NUM_SAMPLES = 300  # of 32,768 tokens: two batches of 128 and 44 more


def write_base(folder: Path, *, value: float = 1.0) -> Path:
    """Writes a folder that looks like a base model, with one small tensor."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {"rms_norm_eps": 1e-6, "rope_theta": 1e6})
    tokens = [{"id": EOD, "content": "<|endoftext|>"}, {"id": 151645, "content": "<|im_end|>"}]
    write_json(folder / "tokenizer.json", {"added_tokens": tokens})
    save_file({"w": np.full(40_000, value, np.float32)}, folder / "model.safetensors")
    return folder


def write_cluster_run(folder: Path, **section: Any) -> Recipe:
    """Writes a run with two arms whose blends are finished, and returns its recipe."""
    write_base(folder / "base")
    content = {
        "run_folder": str(folder / "run"),
        "seed": 7,
        "sources": {
            "notes": {"format": "text_tree", "family": "text", "paths": ["*.txt"]},
        },
        "arms": {"early": {"score": "t", "scope": "group"}, "late": {"score": "t"}},
        "midtrain": {"trainer": "bridge", "config": CONFIG, "base": "base", **section},
    }
    path = folder / "cluster.yaml"
    path.write_text(json.dumps(content))
    recipe = load_recipe(path)
    finish(recipe.run_folder / layout.tokens("notes"), {"tokens.txt": "1 2 3"})
    for arm in ("early", "late"):
        write_blend(recipe, arm)
    return recipe


def write_blend(recipe: Recipe, arm: str, **changes: Any) -> None:
    """Finishes an arm's blend, with other values where `changes` says so."""
    blend = {
        "arm": arm,
        "handover": "index_view",
        "sequence_length": 32768,
        "train": [],
        "train_weights": None,
        "num_train_samples": NUM_SAMPLES,
        "valid": [],
        "test": [],
        "keep_masks": {},
        "entries": [],
        "left_out": [],
        "eod_id": EOD,
        "vocab_size": 151665,
        **changes,
    }
    finish(recipe.run_folder / layout.blend(arm), {layout.BLEND: json.dumps(blend)})


def finish(folder: Path, files: dict[str, str]) -> None:
    """Writes a unit's folder with a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    parts = list_parts(folder, {})
    manifest = Manifest(
        stage="made",
        unit=folder.name,
        stage_version=1,
        config={},
        inputs={},
        fingerprint="0" * 32,
        output_digest=output_digest(parts),
        parts=parts,
        counts=Counts(num_in=1, num_out=1),
        seconds=0.0,
        code={},
        packages={},
    )
    write_manifest(folder, manifest)


def folders_of(recipe: Recipe, arm: str) -> ArmFolders:
    """Returns where an arm's training keeps its files."""
    (found,) = [each for each in cluster_arms(recipe) if each.arm == arm]
    return arm_folders(recipe.run_folder, found)


def write_checkpoint(folders: ArmFolders, step: int) -> None:
    """Leaves what Megatron leaves of a whole checkpoint."""
    (folders.checkpoints / f"iter_{step:07d}").mkdir(parents=True)
    (folders.checkpoints / LATEST).write_text(f"{step}\n")


def write_export(recipe: Recipe, arm: str, *, num_steps: int = 2, **changes: Any) -> Path:
    """Leaves what recipes/midtrain.py export leaves, and returns its folder."""
    folders = folders_of(recipe, arm)
    write_base(folders.export, value=2.0)
    trained = Trained(
        identity=json_of(folders.identity), num_steps=num_steps, recipe=CONFIG, bridge="0.3.1"
    )
    replace(trained, **changes).save(folders.export)
    return folders.export
