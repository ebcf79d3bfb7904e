"""A model's weights on disk, in Megatron's distributed format."""

from __future__ import annotations

import errno
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.validation import StrictHandling
from megatron.core.models.gpt.gpt_model import GPTModel
from torch import distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import StorageMeta

from mira_megatron.atomic_files import write_bytes

_CHECKPOINT_INDEX = "metadata.json"  # dist_checkpointing writes it last


def save_checkpoint(model: GPTModel, folder: Path) -> None:
    """Writes the weights in Megatron's distributed format; `metadata.json` appears last.

    The writer spawns a helper process, so the caller's script needs a main guard. Raises ValueError
    where `folder` already holds a checkpoint, OSError (ENOSPC) where the disk is full.
    """
    if (folder / _CHECKPOINT_INDEX).exists():
        raise ValueError(f"{folder}: already holds a checkpoint. Delete it or name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        dist_checkpointing.save(model.sharded_state_dict(), str(folder))
    except CheckpointException as error:
        # Torch reports a full disk as a broken file, so the disk itself is asked.
        size_bytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        if shutil.disk_usage(folder).free >= size_bytes:
            raise
        raise OSError(
            errno.ENOSPC,
            f"{folder}: no space left while writing a checkpoint of {size_bytes:,} bytes. Make "
            "room and run the same command again",
        ) from error
    if distributed.get_rank() == 0:
        _forget_where_and_when(folder)


def _forget_where_and_when(folder: Path) -> None:
    """Makes torch's `.metadata` depend on the weights alone.

    Torch puts a random id and the path into it, and lists what its writer threads wrote in the
    order in which they happened to finish.
    """
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())  # written by torch a moment ago
    listed = sorted(metadata.storage_data.items(), key=lambda item: repr(item[0]))
    plain = replace(metadata, storage_meta=StorageMeta(), storage_data=dict(listed))
    write_bytes(path, pickle.dumps(plain))


def load_checkpoint(model: GPTModel, folder: Path) -> None:
    """Replaces the model's weights by the ones in `folder`, bit for bit.

    Raises FileNotFoundError where there is no finished checkpoint, ValueError where it does not fit
    the model.
    """
    if not (folder / _CHECKPOINT_INDEX).is_file():
        raise FileNotFoundError(
            f"{folder}: no {_CHECKPOINT_INDEX}, so no finished checkpoint is here. "
            "Name the folder that `mira midtrain` wrote."
        )
    try:
        weights = dist_checkpointing.load(
            model.sharded_state_dict(),
            str(folder),
            strict=StrictHandling.RAISE_ALL,  # by default, weights the model lacks are ignored
        )
    except (CheckpointingException, CheckpointException) as error:
        raise ValueError(
            f"{folder}: this checkpoint does not fit the model ({_reason(error)}). "
            "Give the shape and the vocabulary it was trained with."
        ) from error
    model.load_state_dict(weights)


def _reason(error: BaseException) -> BaseException:
    """Returns Megatron's own error: torch wraps it together with the text of its traceback."""
    if isinstance(error, CheckpointException):
        return next(iter(error.failures.values()))[0]
    return error
