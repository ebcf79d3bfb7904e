"""The order and the split of a group's samples: by hashes, whatever else is there."""

from __future__ import annotations

import xxhash

_HASHES = 1 << 64


def order_key(record_id: str, seed: int) -> int:
    """Returns the 64-bit place of a sample in training.jsonl or validation.jsonl."""
    return xxhash.xxh3_64_intdigest(f"sft-order:{seed}:{record_id}".encode())


def is_validation(content_hash: str, seed: int, validation_fraction: float) -> bool:
    """Returns the side of a sample; records of equal content are on one, across sources too."""
    place = xxhash.xxh3_64_intdigest(f"sft-validation:{seed}:{content_hash}".encode())
    return place < validation_fraction * _HASHES
