"""A Megatron model as a Hugging Face folder that transformers and vLLM load.

Writes  model.safetensors, or several and model.safetensors.index.json above 2 GB each
        tokenizer.json, tokenizer_config.json (with the chat template), generation_config.json
        config.json, last: a folder without it is an unfinished export
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from safetensors.torch import save
from torch import Tensor

from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.training.hf_config import CONFIG, DTYPE_NAMES, hf_config
from mira_megatron.training.hf_layout import Slot, local_name, slots
from mira_megatron.training.hf_tokenizer import check_tokenizer, token_ids, write_tokenizer
from mira_megatron.training.hf_weights import INDEX, WEIGHTS
from mira_megatron.training.model_shape import ModelShape

MAX_SHARD_BYTES = 2 * 1024**3  # a shard is written through memory


def export_hf(
    model: GPTModel,
    shape: ModelShape,
    *,
    vocab_size: int,
    tokenizer_file: Path,
    chat_template: str,
    eos_tokens: Sequence[str],
    dtype: torch.dtype,
    folder: Path,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes the model with `vocab_size` rows of vocabulary, in float32 or bfloat16.

    Generation ends at any of `eos_tokens`; the first is the tokenizer's EOS, the last pads. The
    same weights give the same bytes. Raises ValueError where `folder` already holds a model or the
    tokenizer does not fit (`check_tokenizer`), OSError (one of NO_SPACE) where the disk is full.
    """
    if (folder / CONFIG).exists():
        raise ValueError(f"{folder}: already holds a model. Delete it or name another folder.")
    if dtype not in DTYPE_NAMES:
        raise ValueError(f"dtype={dtype} must be one of {', '.join(map(str, DTYPE_NAMES))}")
    check_tokenizer(shape, tokenizer_file, vocab_size)
    token_ids(tokenizer_file, eos_tokens)
    _write_weights(model, shape, vocab_size, dtype, folder, max_shard_bytes)
    eos_ids = write_tokenizer(
        folder,
        tokenizer_file,
        chat_template=chat_template,
        eos_tokens=eos_tokens,
        max_length=shape.max_sequence_length,
    )
    ends = {"eos_token_id": eos_ids[0], "pad_token_id": eos_ids[-1]}
    write_json(folder / CONFIG, hf_config(shape, vocab_size, dtype) | ends)


@dataclass(frozen=True, slots=True)
class _Shard:
    file: str
    slots: list[Slot]


def _write_weights(
    model: GPTModel,
    shape: ModelShape,
    vocab_size: int,
    dtype: torch.dtype,
    folder: Path,
    max_shard_bytes: int,
) -> None:
    for stale in folder.glob("model*.safetensors*"):  # of an export that was killed
        stale.unlink()
    parameters = {local_name(name): weight for name, weight in model.named_parameters()}
    shards = _shards(list(slots(shape, vocab_size)), dtype, max_shard_bytes)
    for shard in shards:
        tensors: dict[str, Tensor] = {}
        for slot in shard.slots:
            parts = slot.split(parameters[slot.name].detach())
            for name, part in zip(slot.parts, parts, strict=True):
                tensors[name] = part.to("cpu", dtype).contiguous()
        write_bytes(folder / shard.file, save(tensors, metadata={"format": "pt"}))
    if len(shards) > 1:
        write_json(folder / INDEX, _index(shards, dtype))


def _shards(wanted: list[Slot], dtype: torch.dtype, max_shard_bytes: int) -> list[_Shard]:
    """Returns the slots in order, cut where a file would exceed `max_shard_bytes`."""
    groups: list[list[Slot]] = [[]]
    size_bytes = 0
    for slot in wanted:
        slot_bytes = _num_values(slot) * dtype.itemsize
        if groups[-1] and size_bytes + slot_bytes > max_shard_bytes:
            groups.append([])
            size_bytes = 0
        groups[-1].append(slot)
        size_bytes += slot_bytes
    if len(groups) == 1:
        return [_Shard(WEIGHTS, wanted)]
    names = (f"model-{i:05}-of-{len(groups):05}.safetensors" for i in range(1, len(groups) + 1))
    return [_Shard(name, group) for name, group in zip(names, groups, strict=True)]


def _index(shards: Sequence[_Shard], dtype: torch.dtype) -> dict[str, Any]:
    all_slots = [slot for shard in shards for slot in shard.slots]
    total_bytes = sum(map(_num_values, all_slots)) * dtype.itemsize
    return {"metadata": {"total_size": total_bytes}, "weight_map": dict(_files_of(shards))}


def _files_of(shards: Sequence[_Shard]) -> Iterator[tuple[str, str]]:
    for shard in shards:
        for slot in shard.slots:
            for name in slot.parts:
                yield name, shard.file


def _num_values(slot: Slot) -> int:
    return sum(map(prod, slot.parts.values()))
