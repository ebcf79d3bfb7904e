"""blend.json as whoever trains on it reads it, and what its prefixes hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mira_megatron import layout
from mira_megatron.retention.keep_masks import read_keep_mask
from mira_megatron.tokenization.index_file import read_index

# Of blend.json, without which somebody who reads it fails later (docs/formats.md).
_FIELDS = (
    "arm",
    "handover",
    "sequence_length",
    "train",
    "train_weights",
    "num_train_samples",
    "valid",
    "test",
    "keep_masks",
    "entries",
    "left_out",
    "eod_id",
    "vocab_size",
)


def read_blend(folder: Path) -> dict[str, Any]:
    """Returns blend.json with its paths made absolute.

    Raises FileNotFoundError where there is none, ValueError where it is cut short or not whole.
    """
    path = folder / layout.BLEND
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such blend; make it with `mira blend`") from error
    except ValueError as error:
        raise ValueError(f"{path}: cut short ({error}). Make it anew with `mira blend`.") from error
    missing = [name for name in _FIELDS if name not in content]
    if missing:
        raise ValueError(
            f"{path}: says nothing of {', '.join(missing)}. Make it anew with `mira blend`."
        )
    for split in ("train", "valid", "test"):
        content[split] = [absolute_prefix(folder, prefix) for prefix in content[split]]
    content["keep_masks"] = {
        absolute_prefix(folder, prefix): absolute_prefix(folder, mask)
        for prefix, mask in content["keep_masks"].items()
    }
    return content


def absolute_prefix(folder: Path, relative: str) -> str:
    """Returns a path of blend.json, which is relative to its folder, as an absolute one."""
    # Not resolve(): a view's .bin is a link, and Megatron wants the prefix beside its .idx.
    return str((folder / relative).parent.resolve() / Path(relative).name)


def prefix_tokens(blend: Mapping[str, Any], prefix: str) -> int:
    """Returns the tokens of one pass over a prefix of a blend from `read_blend`."""
    mask = blend["keep_masks"].get(prefix)
    if mask is None:
        return read_index(Path(prefix)).num_tokens
    return read_keep_mask(Path(mask)).info.tokens_kept


def prefix_samples(blend: Mapping[str, Any], prefix: str) -> int:
    """Returns the samples of one pass over a prefix; the last label needs a token more."""
    return max(prefix_tokens(blend, prefix) - 1, 0) // int(blend["sequence_length"])


def held_out_weights(blend: Mapping[str, Any], split: str) -> list[float] | None:
    """Returns weights for the prefixes of "valid" or "test": their samples; None for one prefix.

    Without weights Megatron holds one pass over several prefixes, however much is asked for, and a
    training that evaluates often ends in StopIteration when that is used up.
    """
    if len(blend[split]) == 1:
        return None
    return [float(prefix_samples(blend, prefix)) for prefix in blend[split]]
