"""The tokenizer beside an exported model, such that transformers and vLLM encode as we trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.tokenization.tokenizer import QWEN_SPLIT, whole_text_tokenizer
from mira_megatron.training.model_shape import ModelShape


def check_tokenizer(shape: ModelShape, tokenizer_file: Path, vocab_size: int) -> None:
    """Raises ValueError where an export of this shape could not carry the tokenizer.

    Worth calling before training.
    """
    refusal = export_refusal(shape, tokenizer_file, vocab_size)
    if refusal is not None:
        raise ValueError(refusal)


def export_refusal(shape: ModelShape, tokenizer_file: Path, vocab_size: int) -> str | None:
    """Returns why an export of this shape could not carry the tokenizer; None where it can.

    transformers 5 takes only the vocabulary of a Qwen2's tokenizer and always cuts text as Qwen
    does; of a Qwen3-MoE's it takes everything.
    """
    tokenizer = whole_text_tokenizer(tokenizer_file)
    highest = max(tokenizer.get_vocab().values())
    if highest >= vocab_size:
        return (
            f"{tokenizer_file}: its highest token id {highest:,} does not fit vocab_size="
            f"{vocab_size:,}. Give the tokenizer the model was trained with."
        )
    if not shape.is_moe and not _cuts_like_qwen(json.loads(tokenizer.to_str())):
        return (
            f"{tokenizer_file}: it does not cut text as Qwen2's tokenizer does (NFC, then Qwen's "
            "split), but transformers 5 would do that for every Qwen2ForCausalLM, and give other "
            "ids than in training. Take a Qwen tokenizer, or a mixture of experts "
            "(num_moe_experts)."
        )
    return None


def token_ids(tokenizer_file: Path, tokens: Sequence[str]) -> list[int]:
    """Returns the ids of end tokens; raises ValueError where one is missing or none is given."""
    tokenizer = whole_text_tokenizer(tokenizer_file)
    ids = [token_id for token in tokens if (token_id := tokenizer.token_to_id(token)) is not None]
    if len(ids) < len(tokens) or not ids:
        raise ValueError(
            f"{tokenizer_file}: eos_tokens={list(tokens)} must be tokens of it, at least one"
        )
    return ids


def write_tokenizer(
    folder: Path,
    tokenizer_file: Path,
    *,
    chat_template: str,
    eos_tokens: Sequence[str],
    max_length: int,
) -> list[int]:
    """Writes tokenizer.json, tokenizer_config.json and generation_config.json beside a model.

    Returns the ids that generation ends at; the first is the tokenizer's EOS, the last pads.
    """
    eos_ids = token_ids(tokenizer_file, eos_tokens)
    write_bytes(folder / "tokenizer.json", tokenizer_file.read_bytes())
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
            "eos_token": eos_tokens[0],
            "pad_token": eos_tokens[-1],
            "chat_template": chat_template,
            "model_max_length": max_length,
            "clean_up_tokenization_spaces": False,
        },
    )
    ends = {"eos_token_id": eos_ids, "pad_token_id": eos_ids[-1]}
    write_json(folder / "generation_config.json", ends)
    return eos_ids


def _cuts_like_qwen(content: dict[str, Any]) -> bool:
    cut = content["pre_tokenizer"] or {}
    steps = cut.get("pretokenizers") or []
    return (
        (content["normalizer"] or {}).get("type") == "NFC"
        and [step["type"] for step in steps] == ["Split", "ByteLevel"]
        and steps[0]["pattern"] == {"Regex": QWEN_SPLIT}
        and (steps[0]["behavior"], steps[0]["invert"]) == ("Isolated", False)
        and (steps[1]["add_prefix_space"], steps[1]["use_regex"]) == (False, False)
    )
