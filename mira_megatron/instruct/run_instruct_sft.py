"""The work behind `mira instruct-sft`, apart from its settings: it imports torch and Megatron."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import orjson

from mira_megatron import layout
from mira_megatron.distill.chatml import END
from mira_megatron.distill.packed_dataset import PackedDataset
from mira_megatron.instruct.data_files import FACTS, TRAINING, VALIDATION, read_samples
from mira_megatron.instruct.instruct_sft import InstructSftSettings
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.training.hf_tokenizer import check_tokenizer
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.progress_log import log_progress, train_counts
from mira_megatron.training.resuming import Checkpointing
from mira_megatron.training.trained_weights import trained_weights
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
    start = trained_weights(
        workspace,
        checkpoint=settings.checkpoint,
        base=settings.base,
        num_tokens=facts["vocab_size"],
    )
    shape, vocab_size = start.shape, start.vocab_size
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
            initialise=start.load,
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
