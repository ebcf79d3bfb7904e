"""Whether a model folder holds as many parameters as its config.json describes.

An upload or download can be cut short and still look whole: the hub shows 665 thousand parameters
for a scorer of 35 billion. Only headers are read, so the check takes no time for any model.
"""

from __future__ import annotations

import logging
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mira_megatron.scoring.parameter_count import (
    KINDS,
    has_tied_embeddings,
    num_parameters,
    text_config,
)

logger = logging.getLogger(__name__)

# A vision tower left out, or a layer for further tokens left in, is a few percent of a model.
TOLERATED_FRACTION = 0.2

_INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_AGAIN = (
    "Download the model again, all files of one revision, and compare their sizes with the hub's; "
    "if they agree, the upload itself is not whole: ask its authors"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSize:
    """Parameters by the config and by the files."""

    expected_parameters: int | None  # None where the config cannot say …
    reason: str | None  # … and then why
    stored_parameters: int


def check_model_size(folder: Path) -> ModelSize:
    """Returns how large the model in `folder` is, by its config and by its safetensors headers.

    Raises FileNotFoundError for a file that is missing, and ValueError for a file that is cut short
    and where the two sizes differ by more than a fifth.
    """
    config = _json_object(folder / "config.json")
    expected, reason = _expected_parameters(folder / "config.json", config)
    stored = sum(
        math.prod(shape)
        for name, shape in _tensor_shapes(folder).items()
        # A copy of a matrix that the model has once.
        if not (has_tied_embeddings(config) and name.endswith("lm_head.weight"))
    )
    if stored == 0:
        raise ValueError(f"{folder}: its safetensors files hold no parameter. {_AGAIN}")
    if expected is None:
        logger.warning("%s: size not checked against config.json: %s", folder, reason)
    elif abs(stored - expected) > TOLERATED_FRACTION * expected:
        raise ValueError(
            f"{folder}: its safetensors files hold {stored:,} parameters, but its config.json "
            f"describes a model of {expected:,}. {_AGAIN}"
        )
    return ModelSize(expected_parameters=expected, reason=reason, stored_parameters=stored)


def _expected_parameters(path: Path, config: Mapping[str, Any]) -> tuple[int | None, str | None]:
    if config.get("quantization_config"):
        return None, "quantised weights are stored packed"
    try:
        expected = num_parameters(config)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: does not describe a whole model: {error}") from error
    if expected is not None:
        return expected, None
    architecture = text_config(config).get("model_type")
    return None, f"model_type={architecture!r} is none of {', '.join(KINDS)}"


def _tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Returns every tensor's shape by name, from the headers of all shards."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _shards(folder):
        shapes |= _shapes_in_shard(path)
    if (folder / _INDEX).is_file():
        missing = sorted(_weight_map(folder).keys() - shapes.keys())
        if missing:
            raise ValueError(
                f"{folder / _INDEX}: names {len(missing):,} tensors that no shard holds, the first "
                f"is {missing[0]!r}. {_AGAIN}"
            )
    return shapes


def _shards(folder: Path) -> list[Path]:
    """Returns the files that the index names, or all safetensors files where there is no index."""
    if not (folder / _INDEX).is_file():
        shards = sorted(folder.glob("*.safetensors"))
        if not shards:
            raise FileNotFoundError(f"{folder}: holds no *.safetensors file. {_AGAIN}")
        return shards
    names = sorted({str(name) for name in _weight_map(folder).values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ValueError(f"{folder / _INDEX}: {outside[0]!r} must be a file name without a folder")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of the {len(names)} shards that {_INDEX} names are missing, "
            f"the first is {missing[0]}. {_AGAIN}"
        )
    return [folder / name for name in names]


def _weight_map(folder: Path) -> dict[str, Any]:
    weight_map = _json_object(folder / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{folder / _INDEX}: weight_map must map tensor names to files")
    return weight_map


def _shapes_in_shard(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes that a shard's header lists; ValueError if the file is cut short."""
    size_bytes = os.path.getsize(path)
    with path.open("rb") as file:
        prefix = file.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        # A pointer that Git LFS left in place of the file reads as an enormous length.
        if not 2 <= header_bytes <= min(_MAX_HEADER_BYTES, size_bytes - 8):
            raise ValueError(
                f"{path}: no whole safetensors header in its {size_bytes:,} bytes. {_AGAIN}"
            )
        header = file.read(header_bytes)
    try:
        tensors = orjson.loads(header)
        tensors.pop("__metadata__", None)
        shapes = {name: tuple(map(int, tensor["shape"])) for name, tensor in tensors.items()}
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not the header of a safetensors file. {_AGAIN}") from error
    if 8 + header_bytes + end != size_bytes:
        raise ValueError(
            f"{path}: is {size_bytes:,} bytes long, but its header describes "
            f"{8 + header_bytes + end:,}. {_AGAIN}"
        )
    return shapes


def _json_object(path: Path) -> dict[str, Any]:
    try:
        loaded = orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file. {_AGAIN}") from error
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}. {_AGAIN}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(loaded).__name__}")
    return loaded
