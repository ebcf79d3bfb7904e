"""The work behind `mira distill`, apart from its settings: it imports torch and Megatron."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from megatron.core.models.gpt.gpt_model import GPTModel

from mira_megatron import layout
from mira_megatron.distill.chatml import END
from mira_megatron.distill.distill import DistillSettings
from mira_megatron.distill.group_card import group_card
from mira_megatron.distill.scorer_tokenizer import ScorerTokenizer
from mira_megatron.distill.sft_dataset import SftDataset
from mira_megatron.distill.sft_files import TRAINING, VALIDATION
from mira_megatron.stage import WorkResult, Workspace
from mira_megatron.training.base_model import base_shape, load_base
from mira_megatron.training.hf_tokenizer import check_tokenizer
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.progress_log import log_progress, train_counts
from mira_megatron.training.resuming import Checkpointing
from mira_megatron.training.trainer import train
from mira_megatron.training.written_model import write_model

logger = logging.getLogger(__name__)


def distill(workspace: Workspace, settings: DistillSettings) -> WorkResult:
    """Trains one group's scorer, and writes it in Megatron's and in Hugging Face's format."""
    training = settings.training
    assert training is not None, "distill.units gives it to whoever trains here"
    sft = workspace.run.folder / layout.sft(settings.rubric, settings.group)
    tokenizer_file = sft / layout.TOKENIZER_FILE
    tokenizer = ScorerTokenizer(tokenizer_file)
    shape, vocab_size = _shape(settings, tokenizer, tokenizer_file)
    check_tokenizer(shape, tokenizer_file, vocab_size)
    train_dataset, valid_dataset = (
        SftDataset(
            sft / name,
            tokenizer_file,
            sequence_length=training.sequence_length,
            pad_id=tokenizer.end_id,
            seed=training.seed,
            num_epochs=num_epochs,
        )
        for name, num_epochs in ((TRAINING, settings.config.num_epochs), (VALIDATION, 1))
    )
    _log_samples(workspace.unit.label, train_dataset)
    with megatron_process_group():
        result = train(
            model_shape=shape,
            settings=training,
            vocab_size=vocab_size,
            train_dataset=train_dataset,
            valid_dataset=valid_dataset,
            initialise=_initialise(settings, shape),
            on_log=partial(log_progress, workspace.unit.label),
            checkpointing=Checkpointing(
                folder=workspace.scratch / "training", data_fingerprint=workspace.fingerprint
            ),
            tensorboard_folder=workspace.run.folder
            / layout.TENSORBOARD
            / f"{settings.rubric}.{settings.group}",
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
    max_model_len = shape.max_sequence_length
    if settings.base is not None:  # it may take more than it was taught with here
        max_model_len = min(max_model_len, training.sequence_length)
    group_card(workspace, settings, max_model_len).save(workspace.folder)
    return WorkResult(
        counts=train_counts(
            workspace.unit.label, result, len(train_dataset), training.global_batch_size
        )
    )


def _log_samples(label: str, dataset: SftDataset) -> None:
    logger.info(
        "%s: %s samples in %s sequences an epoch, %.0f%% of their places filled",
        label,
        f"{dataset.num_samples:,}",
        f"{dataset.num_sequences:,}",
        100 * dataset.packing_efficiency,
    )


def _shape(
    settings: DistillSettings, tokenizer: ScorerTokenizer, tokenizer_file: Path
) -> tuple[ModelShape, int]:
    """Returns the scorer's shape and the rows of its vocabulary.

    Raises ValueError where the samples were made with another tokenizer than the base model's.
    """
    if settings.model is not None:
        return settings.model, tokenizer.vocab_size
    assert settings.base is not None, "distill.units asks for one of the two"
    way_out = f"Delete {tokenizer_file.parent} to have them made again."
    hf = base_shape(settings.base, tokenizer_file, tokenizer.vocab_size, way_out)
    return hf.shape, hf.vocab_size


def _initialise(settings: DistillSettings, shape: ModelShape) -> Callable[[GPTModel], None] | None:
    """Returns what replaces random weights by the base's; None where there is no base."""
    if settings.base is None:
        return None
    return partial(load_base, folder=settings.base, shape=shape, setting="distill.base")
