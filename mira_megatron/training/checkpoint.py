"""Tensors on disk in Megatron's distributed format: a model's weights, or what training adds.

Raises OSError (ENOSPC) with the folder and the way out when the disk is full.
"""

from __future__ import annotations

import errno
import pickle
import queue
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.dist_checkpointing.validation import StrictHandling
from megatron.core.models.gpt.gpt_model import GPTModel
from torch import Tensor, distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import StorageMeta

from mira_megatron.atomic_files import NO_SPACE, write_bytes

_CHECKPOINT_INDEX = "metadata.json"  # dist_checkpointing writes it last


def save_checkpoint(model: GPTModel, folder: Path) -> None:
    """Writes the weights in Megatron's distributed format; `metadata.json` appears last.

    Raises ValueError where `folder` already holds a checkpoint, OSError (ENOSPC) where the disk is
    full.
    """
    _save(model.sharded_state_dict(), model.parameters(), folder)


def save_tensors(tensors: dict[str, Tensor], folder: Path) -> None:
    """Writes tensors that every process holds alike; otherwise as `save_checkpoint`."""
    _save(_replicated(tensors), tensors.values(), folder)


def load_checkpoint(model: GPTModel, folder: Path) -> None:
    """Replaces the model's weights by the ones in `folder`, bit for bit.

    Raises FileNotFoundError where there is no finished checkpoint, ValueError where it does not fit
    the model.
    """
    model.load_state_dict(_load(model.sharded_state_dict(), folder))


def load_tensors(tensors: dict[str, Tensor], folder: Path) -> None:
    """Replaces the values of `tensors` by those in `folder`; raises as `load_checkpoint`."""
    loaded = _load(_replicated(tensors), folder)
    for name, tensor in tensors.items():
        tensor.copy_(loaded[name])


def _replicated(tensors: dict[str, Tensor]) -> dict[str, Any]:
    rank = distributed.get_rank()
    return {
        name: ShardedTensor.from_rank_offsets(name, tensor, replica_id=rank)
        for name, tensor in tensors.items()
    }


def _save(sharded: dict[str, Any], tensors: Iterable[Tensor], folder: Path) -> None:
    if (folder / _CHECKPOINT_INDEX).exists():
        raise ValueError(f"{folder}: already holds a checkpoint. Delete it or name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    # By default a helper process passes on what the writers report. It is only needed where writing
    # goes on in the background, takes seconds to start, and outlives a killed run.
    filesystem_async._results_queue = queue.Queue()
    try:
        dist_checkpointing.save(sharded, str(folder))
    except (CheckpointException, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_SPACE:
            raise
        # Torch reports a full disk as a broken file, so the disk itself is asked.
        size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if shutil.disk_usage(folder).free >= size_bytes:
            raise
        raise OSError(
            errno.ENOSPC,
            f"{folder}: no space left while writing a checkpoint of {size_bytes:,} bytes. Make "
            "room and run the same command again",
        ) from error
    if distributed.get_rank() == 0:
        _forget_where_and_when(folder)


def _load(sharded: dict[str, Any], folder: Path) -> dict[str, Any]:
    if not (folder / _CHECKPOINT_INDEX).is_file():
        raise FileNotFoundError(
            f"{folder}: no {_CHECKPOINT_INDEX}, so no finished checkpoint is here. "
            "Name a folder that a training run wrote."
        )
    try:
        loaded: dict[str, Any] = dist_checkpointing.load(
            sharded,
            str(folder),
            strict=StrictHandling.RAISE_ALL,  # by default, tensors not asked for are ignored
        )
    except (CheckpointingException, CheckpointException) as error:
        raise ValueError(
            f"{folder}: this checkpoint does not fit the model ({_reason(error)}). "
            "Give the shape and the vocabulary it was trained with."
        ) from error
    return loaded


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


def _reason(error: BaseException) -> BaseException:
    """Returns Megatron's own error: torch wraps it together with the text of its traceback."""
    if isinstance(error, CheckpointException):
        return next(iter(error.failures.values()))[0]
    return error
