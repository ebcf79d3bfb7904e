"""A trained model in its folder: Megatron's checkpoint, and beside it what transformers loads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from megatron.core.models.gpt.gpt_model import GPTModel

from mira_megatron import layout
from mira_megatron.distill.chatml import CHAT_TEMPLATE
from mira_megatron.training.checkpoint import save_checkpoint
from mira_megatron.training.hf_export import export_hf
from mira_megatron.training.model_shape import ModelShape


def write_model(
    model: GPTModel,
    shape: ModelShape,
    *,
    vocab_size: int,
    precision: str,
    tokenizer_file: Path | None,
    eos_tokens: Sequence[str],
    scratch: Path,
    folder: Path,
) -> None:
    """Writes `folder`/weights/ and, where there is a tokenizer to export, `folder`/hf/.

    Neither is written atomically by those who write it, so both are made in `scratch` and get their
    names when they are whole. Raises as `save_checkpoint` and `export_hf` do.
    """
    names = (layout.WEIGHTS, layout.HF_EXPORT)
    for name in names:
        for left in (scratch / name, folder / name):
            shutil.rmtree(left, ignore_errors=True)
    save_checkpoint(model, scratch / layout.WEIGHTS)
    if tokenizer_file is not None:
        export_hf(
            model,
            shape,
            vocab_size=vocab_size,
            tokenizer_file=tokenizer_file,
            chat_template=CHAT_TEMPLATE,
            eos_tokens=eos_tokens,
            dtype=getattr(torch, precision),
            folder=scratch / layout.HF_EXPORT,
        )
    for name in names:
        if (scratch / name).is_dir():
            os.replace(scratch / name, folder / name)
