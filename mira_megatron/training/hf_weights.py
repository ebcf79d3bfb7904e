"""Weights of a Hugging Face folder into a Megatron model, tensor by tensor."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mira_megatron.training.hf_config import CONFIG, read_hf_shape
from mira_megatron.training.hf_layout import Slot, local_name, slots
from mira_megatron.training.model_shape import ModelShape

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DTYPES = ("F32", "BF16", "F16")
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
# Rotary positions go as far as one likes, the auxiliary loss is the training's own affair, and the
# usual kv_channels may be unsaid.
_MAY_DIFFER = ("max_sequence_length", "moe_aux_loss_coeff", "kv_channels")


def load_hf_weights(model: GPTModel, folder: Path, shape: ModelShape) -> None:
    """Replaces the model's weights by those of a Hugging Face folder, in the model's own type.

    Where the two vocabularies differ in size, rows that the folder lacks stay as they are, and rows
    past the model's padded vocabulary are left out. Raises FileNotFoundError or ValueError, before
    anything is replaced, where the folder does not hold exactly the weights of this shape.
    """
    found = read_hf_shape(folder)
    _check_same(folder / CONFIG, shape, found.shape)
    parameters = {local_name(name): weight for name, weight in model.named_parameters()}
    wanted = list(slots(shape, found.vocab_size))
    assert parameters.keys() == {slot.name for slot in wanted}, "the model is not of this shape"
    with HfWeights(folder) as weights:
        weights.check(wanted, is_tied=shape.tie_embeddings)
        with torch.no_grad():
            for slot in wanted:
                joined = slot.join([weights.tensor(name) for name in slot.parts])
                _copy(joined, parameters[slot.name], slot)


def _copy(joined: Tensor, parameter: Tensor, slot: Slot) -> None:
    num_rows = min(len(joined), len(parameter)) if slot.is_padded else len(parameter)
    parameter[:num_rows].copy_(joined[:num_rows])


def _check_same(path: Path, shape: ModelShape, found: ModelShape) -> None:
    wanted, there = asdict(shape), asdict(found)
    if shape.channels_per_head != found.channels_per_head:
        raise _mismatch(path, "kv_channels", shape.channels_per_head, found.channels_per_head)
    for name in wanted:
        if name not in _MAY_DIFFER and wanted[name] != there[name]:
            raise _mismatch(path, name, wanted[name], there[name])


def _mismatch(path: Path, name: str, wanted: object, there: object) -> ValueError:
    return ValueError(
        f"{path}: its weights are of a model with {name}={there}, the model to fill has "
        f"{name}={wanted}. Give the shape of the base model."
    )


class HfWeights:
    """The safetensors files of a Hugging Face folder, open as one for the length of a `with`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file_of = _files_by_tensor(folder)
        self._opened: dict[Path, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> HfWeights:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def tensor(self, name: str) -> Tensor:
        """Returns one tensor as it is stored."""
        tensor: Tensor = self._open(self._file_of[name]).get_tensor(name)
        return tensor

    def check(self, wanted: list[Slot], *, is_tied: bool) -> None:
        """Raises ValueError unless exactly these slots' tensors are there, in their shapes."""
        shapes = {name: shape for slot in wanted for name, shape in slot.parts.items()}
        extra = set(self._file_of) - set(shapes)
        if is_tied and _HEAD in extra and _EMBEDDING in self._file_of:
            extra.discard(_HEAD)  # some writers repeat the tied matrix
            self._check_tied()
        if missing := sorted(set(shapes) - set(self._file_of)):
            raise self._unfit(f"lacks {_some(missing)}")
        if extra:
            raise self._unfit(f"holds {_some(sorted(extra))}, which the model has not")
        for name, shape in shapes.items():
            self._check_tensor(name, shape)

    def _check_tensor(self, name: str, shape: tuple[int, ...]) -> None:
        try:
            stored = self._open(self._file_of[name]).get_slice(name)
        except SafetensorError as error:
            raise ValueError(
                f"{self._file_of[name]}: {name} cannot be read ({error}). Fetch the model anew."
            ) from error
        if tuple(stored.get_shape()) != shape:
            raise self._unfit(f"holds {name} of shape {stored.get_shape()}, expected {list(shape)}")
        if stored.get_dtype() not in _DTYPES:
            raise self._unfit(
                f"holds {name} as {stored.get_dtype()}, expected one of {', '.join(_DTYPES)}"
            )

    def _check_tied(self) -> None:
        if not torch.equal(self.tensor(_HEAD), self.tensor(_EMBEDDING)):
            raise self._unfit(
                f"holds {_HEAD} that differs from {_EMBEDDING}, though tie_word_embeddings is true"
            )

    def _unfit(self, reason: str) -> ValueError:
        return ValueError(
            f"{self._folder}: the folder's weights do not fit its {CONFIG}: it {reason}. Fetch or "
            "export the model anew."
        )

    def _open(self, path: Path) -> Any:
        if path not in self._opened:
            try:
                opened = safe_open(path, framework="pt")
            except SafetensorError as error:
                raise ValueError(
                    f"{path}: not a safetensors file ({error}). Fetch the model anew."
                ) from error
            self._opened[path] = self._stack.enter_context(opened)
        return self._opened[path]


def _files_by_tensor(folder: Path) -> dict[str, Path]:
    single, index = folder / WEIGHTS, folder / INDEX
    if single.is_file():
        try:
            with safe_open(single, framework="pt") as weights:
                return dict.fromkeys(weights.keys(), single)
        except SafetensorError as error:
            raise ValueError(
                f"{single}: not a safetensors file ({error}). Fetch the model anew."
            ) from error
    if not index.is_file():
        raise FileNotFoundError(
            f"{folder}: neither {WEIGHTS} nor {INDEX} is here. Save the model as safetensors "
            "(transformers: save_pretrained)."
        )
    return _files_of_index(index)


def _files_of_index(index: Path) -> dict[str, Path]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        files = {name: index.parent / file for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index}: not an index of safetensors files ({error!r}). Fetch the model anew."
        ) from error
    for path in sorted(set(files.values())):
        if path.parent != index.parent or not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file beside {INDEX}, which lists it. Fetch the model anew."
            )
    return files


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3:,} more"
