"""The work behind `mira midtrain`, apart from its settings: it imports torch and Megatron."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from megatron.core.models.gpt.gpt_model import GPTModel

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
from mira_megatron.training.base_model import base_shape, load_base
from mira_megatron.training.hf_tokenizer import export_refusal
from mira_megatron.training.midtrain import MidtrainSettings
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.progress_log import log_progress, train_counts
from mira_megatron.training.resuming import Checkpointing
from mira_megatron.training.trainer import train
from mira_megatron.training.written_model import write_model

logger = logging.getLogger(__name__)


def midtrain(workspace: Workspace, settings: MidtrainSettings) -> WorkResult:
    """Trains on one arm's blend, in this process, from random weights or the base's.

    Raises ValueError where the base's tokenizer is another than the tokens were made with.
    """
    # Megatron reads these files itself, and any bytes are tokens to it.
    for upstream in workspace.unit.upstream:
        verify_digests(workspace.run.folder / upstream, workspace.upstream_manifest(upstream))
    blend = read_blend(workspace.run.folder / layout.blend(settings.arm))
    shape, vocab_size, initialise = _start(workspace, settings, blend["vocab_size"])
    # Megatron does not write its index cache atomically: what a killed run left is not trusted. The
    # trainer's own checkpoints are, so a killed run goes on from the newest.
    cache_folder = workspace.scratch / "index_cache"
    shutil.rmtree(cache_folder, ignore_errors=True)
    with megatron_process_group():
        datasets = build_datasets(blend, seed=settings.training.seed, cache_folder=cache_folder)
        write_json(workspace.folder / "coverage.json", coverage_report(blend, datasets))
        result = train(
            model_shape=shape,
            settings=settings.training,
            vocab_size=vocab_size,
            train_dataset=datasets.train,
            valid_dataset=datasets.valid,
            initialise=initialise,
            on_log=partial(log_progress, workspace.unit.label),
            checkpointing=Checkpointing(
                folder=workspace.scratch / "training", data_fingerprint=workspace.fingerprint
            ),
        )
        tokenizer_file, eos_tokens = _exported_tokenizer(
            workspace, shape, vocab_size, blend["eod_id"]
        )
        write_model(
            result.model,
            shape,
            vocab_size=vocab_size,
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


def _start(
    workspace: Workspace, settings: MidtrainSettings, num_tokens: int
) -> tuple[ModelShape, int, Callable[[GPTModel], None] | None]:
    """Returns the model's shape, the rows of its vocabulary, and what replaces random weights."""
    if settings.model is not None:
        return settings.model, num_tokens, None
    assert settings.base is not None, "midtrain.units asks for one of the two"
    tokenizer_file = workspace.run.folder / layout.TOKENIZER / layout.TOKENIZER_FILE
    way_out = "Name the base's own tokenizer as tokenize.tokenizer."
    hf = base_shape(settings.base, tokenizer_file, num_tokens, way_out)
    load = partial(load_base, folder=settings.base, shape=hf.shape, setting="midtrain.base")
    return hf.shape, hf.vocab_size, load


def _exported_tokenizer(
    workspace: Workspace, shape: ModelShape, vocab_size: int, eod_id: int
) -> tuple[Path | None, list[str]]:
    """Returns the blend's tokenizer and the token that ends a document; None if not to export."""
    path = workspace.run.folder / layout.TOKENIZER / layout.TOKENIZER_FILE
    refusal = export_refusal(shape, path, vocab_size)
    if refusal is not None:
        logger.info("%s: no %s/ is written: %s", workspace.unit.label, layout.HF_EXPORT, refusal)
        return None, []
    eod_token = whole_text_tokenizer(path).id_to_token(eod_id)
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
