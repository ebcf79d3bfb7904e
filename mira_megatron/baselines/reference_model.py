"""A causal language model's loss on token windows, by Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mira_megatron import layout
from mira_megatron.baselines.reference_tokens import reference_tokens
from mira_megatron.baselines.token_windows import Window

_DTYPES = {"auto": "auto", "float32": torch.float32, "bfloat16": torch.bfloat16}
_MOST_LOGITS = 1 << 28  # 1 GiB in float32: of a batch, one window at least


class ReferenceModel:
    """A model and its tokenizer, loaded once; ValueError for a folder that holds none."""

    def __init__(self, folder: Path, dtype: str) -> None:
        try:
            self._encode = _encoder(folder)
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=_DTYPES[dtype], local_files_only=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{folder}: transformers cannot load this model ({error}). Give the folder of a "
                "Hugging Face causal language model with its tokenizer."
            ) from error
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: Any = model.eval().to(self._device)
        self._vocab_size = int(model.config.vocab_size)
        self.max_window = int(model.config.max_position_embeddings)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of texts, without any that begin or end a text by themselves."""
        if not texts:
            return []
        return self._encode(texts)

    def losses(self, windows: Sequence[Window]) -> list[npt.NDArray[np.float64]]:
        """Returns the loss of every window's targets in nats, in the order of the windows."""
        found: dict[int, npt.NDArray[np.float64]] = {}
        by_length = sorted(range(len(windows)), key=lambda number: len(windows[number].ids))
        while by_length:
            longest = len(windows[by_length[-1]].ids)
            num_rows = max(1, _MOST_LOGITS // (longest * self._vocab_size))
            numbers, by_length = by_length[-num_rows:], by_length[:-num_rows]
            batch = [windows[number] for number in numbers]
            found.update(zip(numbers, self._batch_losses(batch), strict=True))
        return [found[number] for number in range(len(windows))]

    @torch.inference_mode()
    def _batch_losses(self, batch: Sequence[Window]) -> list[npt.NDArray[np.float64]]:
        length = max(len(window.ids) for window in batch)
        ids_BL = torch.zeros(len(batch), length, dtype=torch.long)
        is_token_BL = torch.zeros(len(batch), length, dtype=torch.long)
        for row, window in enumerate(batch):
            ids_BL[row, : len(window.ids)] = torch.tensor(window.ids)
            is_token_BL[row, : len(window.ids)] = 1
        logits = self._model(
            input_ids=ids_BL.to(self._device), attention_mask=is_token_BL.to(self._device)
        ).logits
        losses = []
        for row, window in enumerate(batch):
            targets = slice(window.first_target, len(window.ids))
            before = slice(window.first_target - 1, len(window.ids) - 1)
            loss = torch.nn.functional.cross_entropy(
                logits[row, before].float(), ids_BL[row, targets].to(self._device), reduction="none"
            )
            losses.append(loss.double().cpu().numpy())
        return losses


def _encoder(folder: Path) -> Callable[[Sequence[str]], list[list[int]]]:
    """Returns what encodes texts: the tokenizer.json, or without one what transformers makes."""
    file = folder / layout.TOKENIZER_FILE
    if file.is_file():
        return reference_tokens(file).encode
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        encoded = tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    return encode
