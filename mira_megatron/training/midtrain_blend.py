"""What a recipe asks of the blend that it is trained on. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.training.dense_layouts import DenseRecipe
from mira_megatron.training.dense_models import END_OF_DOCUMENT


def num_steps(blend: Mapping[str, Any], recipe: DenseRecipe) -> int:
    """Returns the steps of one pass over a blend's kept tokens, whole global batches only.

    Raises ValueError for a blend that fills none.
    """
    steps = int(blend["num_train_samples"]) // recipe.layout.global_batch_size
    if steps == 0:
        raise ValueError(
            f"arm {blend.get('arm')!r}: its {blend['num_train_samples']:,} samples are no global "
            f"batch of {recipe.layout.global_batch_size:,}, which {recipe.name} takes. Select more."
        )
    return steps


def check_blend(blend: Mapping[str, Any], recipe: DenseRecipe, base_folder: Path) -> None:
    """Raises ValueError for a blend of another length, vocabulary or end of document.

    FileNotFoundError where the base has no tokenizer.json.
    """
    arm = f"the blend of arm {blend.get('arm')!r}"
    if blend["sequence_length"] != recipe.sequence_length:
        raise ValueError(
            f"{arm} has samples of {blend['sequence_length']:,} tokens, but {recipe.name} trains "
            f"on {recipe.sequence_length:,}. Blend again with blend.sequence_length="
            f"{recipe.sequence_length}, or take another recipe."
        )
    if blend["vocab_size"] > recipe.model.hf_config["vocab_size"]:
        raise ValueError(
            f"{arm} has token ids up to {blend['vocab_size'] - 1:,}, but {recipe.model.name} has "
            f"{recipe.model.hf_config['vocab_size']:,} tokens. Tokenize with the base's tokenizer."
        )
    path = base_folder / layout.TOKENIZER_FILE
    found = _id_of(path, END_OF_DOCUMENT)
    if blend["eod_id"] != found:
        raise ValueError(
            f"{arm} ends its documents with token {blend['eod_id']:,}, but {END_OF_DOCUMENT} is "
            f"{found} in {path}. Tokenize with the base's tokenizer and tokenize.eod_token="
            f"'{END_OF_DOCUMENT}'."
        )


def _id_of(path: Path, token: str) -> int | None:
    """Returns an added token's id in a tokenizer.json."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Give a base with its tokenizer.")
    for added in json.loads(path.read_bytes()).get("added_tokens", []):
        if added.get("content") == token:
            return int(added["id"])
    return None
