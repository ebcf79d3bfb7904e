"""The work behind `mira midtrain`, apart from its settings: it imports torch and Megatron."""

from __future__ import annotations

import logging
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
from mira_megatron.tokenization.tokenizer import whole_text_tokenizer
from mira_megatron.training.hf_tokenizer import export_refusal
from mira_megatron.training.midtrain import MidtrainSettings
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.progress_log import log_progress, train_counts
from mira_megatron.training.resuming import Checkpointing
from mira_megatron.training.trainer import train
from mira_megatron.training.written_model import write_model

logger = logging.getLogger(__name__)


def midtrain(workspace: Workspace, settings: MidtrainSettings) -> WorkResult:
    """Trains on one arm's blend from random weights, in this process."""
    # Megatron reads these files itself, and any bytes are tokens to it.
    for upstream in workspace.unit.upstream:
        verify_digests(workspace.run.folder / upstream, workspace.upstream_manifest(upstream))
    blend = read_blend(workspace.run.folder / layout.blend(settings.arm))
    # Megatron does not write its index cache atomically: what a killed run left is not trusted. The
    # trainer's own checkpoints are, so a killed run goes on from the newest.
    cache_folder = workspace.scratch / "index_cache"
    shutil.rmtree(cache_folder, ignore_errors=True)
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
        tokenizer_file, eos_tokens = _exported_tokenizer(workspace, settings, blend)
        write_model(
            result.model,
            settings.model,
            vocab_size=blend["vocab_size"],
            precision=settings.training.precision,
            tokenizer_file=tokenizer_file,
            eos_tokens=eos_tokens,
            scratch=workspace.scratch,
            folder=workspace.folder,
        )
    result.state.save(workspace.folder / "trainer_state.json")
    return WorkResult(
        counts=train_counts(
            workspace.unit.label,
            result,
            len(datasets.train),
            settings.training.global_batch_size,
        )
    )


def _exported_tokenizer(
    workspace: Workspace, settings: MidtrainSettings, blend: Mapping[str, Any]
) -> tuple[Path | None, list[str]]:
    """Returns the blend's tokenizer and the token that ends a document; None if not to export."""
    path = workspace.run.folder / layout.TOKENIZER / layout.TOKENIZER_FILE
    refusal = export_refusal(settings.model, path, blend["vocab_size"])
    if refusal is not None:
        logger.info("%s: no %s/ is written: %s", workspace.unit.label, layout.HF_EXPORT, refusal)
        return None, []
    eod_token = whole_text_tokenizer(path).id_to_token(blend["eod_id"])
    assert eod_token is not None, "the blend's id is this tokenizer's"
    return path, [eod_token]


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
