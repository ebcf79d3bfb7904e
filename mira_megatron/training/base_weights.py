"""Telling one Hugging Face folder's weights from another's without reading them whole.

Every process of a training asks which base it starts from; 30 GB read by each would take minutes.
"""

from __future__ import annotations

from pathlib import Path

import xxhash

_BLOCKS, _BLOCK_BYTES = 16, 65536  # of each file, evenly spread; the first has the tensors' names


def weights_digest(folder: Path) -> str:
    """Returns 32 hex digits of config.json, and of every safetensors file's size and 16 blocks.

    The same for a copy elsewhere. Weights that differ in a few values only may be taken for the
    same: it is a sample. Raises FileNotFoundError where there is no config.json or no weights.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"{config}: not a Hugging Face model. Give its folder as the base.")
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no *.safetensors files. Give a folder with weights.")
    digest = xxhash.xxh3_128(config.read_bytes())
    for path in paths:
        size = path.stat().st_size
        digest.update(f"\0{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for block in range(_BLOCKS):
                file.seek(block * max(size - _BLOCK_BYTES, 0) // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()
