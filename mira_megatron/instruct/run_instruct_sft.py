"""The work behind `mira instruct-sft`, apart from its settings: it imports torch and Megatron."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson
from megatron.core.models.gpt.gpt_model import GPTModel

from mira_megatron import layout
from mira_megatron.distill.chatml import END
from mira_megatron.distill.packed_dataset import PackedDataset
from mira_megatron.instruct.data_files import FACTS, TRAINING, VALIDATION, read_samples
from mira_megatron.instruct.instruct_sft import InstructSftSettings
from mira_megatron.manifest import verify_digests
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.training.base_model import base_shape, load_base
from mira_megatron.training.checkpoint import load_checkpoint
from mira_megatron.training.hf_tokenizer import check_tokenizer
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.progress_log import log_progress, train_counts
from mira_megatron.training.resuming import Checkpointing
from mira_megatron.training.trainer import train
from mira_megatron.training.written_model import write_model

logger = logging.getLogger(__name__)


def instruct_sft(workspace: Workspace, settings: InstructSftSettings) -> WorkResult:
    """Tunes one arm's mid-trained model, and writes it in both formats.

    Raises ValueError where the samples are longer than the model was made for, or its tokenizer
    cannot be exported with it.
    """
    run_folder, training = workspace.run.folder, settings.training
    facts = orjson.loads((run_folder / layout.INSTRUCT_DATA / FACTS).read_bytes())
    tokenizer_file = run_folder / layout.TOKENIZER / layout.TOKENIZER_FILE
    shape, vocab_size, initialise = _start(workspace, settings, facts["vocab_size"])
    check_tokenizer(shape, tokenizer_file, vocab_size)
    if training.sequence_length > shape.max_sequence_length:
        raise ValueError(
            f"instruct_sft.sequence_length={training.sequence_length:,} exceeds the "
            f"{shape.max_sequence_length:,} tokens that midtrain's model was made for. Lower it, "
            "or give midtrain.model a max_sequence_length"
        )
    train_dataset = _dataset(workspace, settings, TRAINING, facts["end_id"])
    valid_dataset = _dataset(workspace, settings, VALIDATION, facts["end_id"])
    _log_samples(workspace.unit.label, train_dataset)
    with megatron_process_group():
        result = train(
            model_shape=shape,
            settings=training,
            vocab_size=vocab_size,
            train_dataset=train_dataset,
            valid_dataset=valid_dataset,
            initialise=initialise,
            on_log=partial(log_progress, workspace.unit.label),
            checkpointing=Checkpointing(
                folder=workspace.scratch / "training", data_fingerprint=workspace.fingerprint
            ),
        )
        write_model(
            result.model,
            shape,
            vocab_size=vocab_size,
            precision=training.precision,
            tokenizer_file=tokenizer_file,
            eos_tokens=[END],
            scratch=workspace.scratch,
            folder=workspace.folder,
        )
    result.state.save(workspace.folder / "trainer_state.json")
    return WorkResult(
        counts=train_counts(
            workspace.unit.label, result, len(train_dataset), training.global_batch_size
        )
    )


def _start(
    workspace: Workspace, settings: InstructSftSettings, num_tokens: int
) -> tuple[ModelShape, int, Callable[[GPTModel], None]]:
    """Returns the model's shape, the rows of its vocabulary, and what gives it its weights."""
    vocab_size = num_tokens
    if settings.base is not None:
        tokenizer_file = workspace.run.folder / layout.TOKENIZER / layout.TOKENIZER_FILE
        way_out = "Name the base's own tokenizer as tokenize.tokenizer."
        hf = base_shape(settings.base, tokenizer_file, num_tokens, way_out)
        shape, vocab_size = hf.shape, hf.vocab_size
    if settings.checkpoint is None:
        assert settings.base is not None, "training.trained_arms gives no base arm without a base"
        load = partial(load_base, folder=settings.base, shape=shape, setting="midtrain.base")
        return shape, vocab_size, load
    folder = workspace.run.folder / settings.checkpoint
    manifest = workspace.upstream_manifest(settings.checkpoint)
    verify_digests(folder, manifest)  # Megatron reads the weights itself
    if settings.base is None:
        shape = ModelShape(**manifest.config["model"])
    return shape, vocab_size, partial(load_checkpoint, folder=folder / layout.WEIGHTS)


def _dataset(
    workspace: Workspace, settings: InstructSftSettings, name: str, pad_id: int
) -> PackedDataset:
    """Returns one side's samples, packed; validation is read once."""
    manifest = workspace.upstream_manifest(layout.INSTRUCT_DATA)
    (digest,) = [part.digest for part in manifest.parts if part.path == name]
    path: Path = workspace.run.folder / layout.INSTRUCT_DATA / name
    return PackedDataset(
        read_samples(path, digest),
        sequence_length=settings.training.sequence_length,
        pad_id=pad_id,
        seed=settings.training.seed,
        num_epochs=settings.config.num_epochs if name == TRAINING else 1,
    )


def _log_samples(label: str, dataset: PackedDataset) -> None:
    logger.info(
        "%s: %s conversations in %s sequences an epoch, %.0f%% of their places filled",
        label,
        f"{dataset.num_samples:,}",
        f"{dataset.num_sequences:,}",
        100 * dataset.packing_efficiency,
    )
