"""The work behind `mira midtrain`, apart from its settings: it imports torch and Megatron."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.atomic_files import write_json
from mira_megatron.manifest import verify_digests
from mira_megatron.provenance.coverage import dataset_coverage
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.tokenization.megatron_datasets import (
    BlendDatasets,
    build_datasets,
    prefix_datasets,
    read_blend,
)
from mira_megatron.training.checkpoint import save_checkpoint
from mira_megatron.training.midtrain import MidtrainSettings
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.progress_log import log_progress, train_counts
from mira_megatron.training.resuming import Checkpointing
from mira_megatron.training.trainer import train


def midtrain(workspace: Workspace, settings: MidtrainSettings) -> WorkResult:
    """Trains on one arm's blend from random weights, in this process."""
    # Megatron reads these files itself, and any bytes are tokens to it.
    for upstream in workspace.unit.upstream:
        verify_digests(workspace.run.folder / upstream, workspace.upstream_manifest(upstream))
    blend = read_blend(workspace.run.folder / layout.blend(settings.arm))
    # Megatron writes neither its index cache nor weights atomically: what a killed run left is not
    # trusted, and the weights are moved to their place when they are whole. The trainer's own
    # checkpoints are, so a killed run goes on from the newest.
    cache_folder, weights = workspace.scratch / "index_cache", workspace.scratch / "weights"
    for folder in (cache_folder, weights, workspace.folder / "weights"):
        shutil.rmtree(folder, ignore_errors=True)
    with megatron_process_group():
        datasets = build_datasets(blend, seed=settings.training.seed, cache_folder=cache_folder)
        write_json(workspace.folder / "coverage.json", coverage_report(blend, datasets))
        result = train(
            model_shape=settings.model,
            settings=settings.training,
            vocab_size=blend["vocab_size"],
            train_dataset=datasets.train,
            valid_dataset=datasets.valid,
            on_log=partial(log_progress, workspace.unit.label),
            checkpointing=Checkpointing(
                folder=workspace.scratch / "training", data_fingerprint=workspace.fingerprint
            ),
        )
        save_checkpoint(result.model, weights)
    os.replace(weights, workspace.folder / "weights")
    result.state.save(workspace.folder / "trainer_state.json")
    return WorkResult(
        counts=train_counts(
            workspace.unit.label,
            result,
            len(datasets.train),
            settings.training.global_batch_size,
        )
    )


def coverage_report(blend: Mapping[str, Any], datasets: BlendDatasets) -> list[dict[str, Any]]:
    """Returns, per prefix and split, what one pass reads and the tail it leaves out."""
    return [
        {
            "split": split,
            "prefix": Path(prefix).name,
            "num_samples": coverage.num_samples,
            "tokens_seen": coverage.num_tokens_seen,
            "tail_tokens": coverage.tail_tokens,
        }
        for split, dataset in (("train", datasets.train), ("valid", datasets.valid))
        for prefix, coverage in zip(
            blend[split], map(dataset_coverage, prefix_datasets(dataset)), strict=True
        )
    ]
