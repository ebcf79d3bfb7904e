"""Keep masks: one bool per document of a token dataset, True = keep.

`<source>.keep.npy` holds the mask, `<source>.keep.json` beside it what it belongs to. A mask is
never applied to an index other than the one it was made for. Standard library and numpy only.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mira_megatron.atomic_files import write_bytes, write_json

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepMaskInfo:
    """What stands in the mask's `.json`."""

    num_documents: int
    num_kept: int
    tokens_total: int
    tokens_kept: int
    idx_fingerprint: str  # of the .idx the mask was made for
    scores_fingerprint: str  # of the record scores behind it
    selection_digest: str  # of the index and the mask: names views, keys Megatron's cache
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepMask:
    """A mask that was read together with its description."""

    path: Path
    is_kept: npt.NDArray[np.bool_]
    info: KeepMaskInfo


def selection_digest(idx_fingerprint: str, is_kept: npt.NDArray[np.bool_]) -> str:
    """Returns 32 hex digits that change with the index or with any document's decision."""
    digest = hashlib.blake2b(idx_fingerprint.encode(), digest_size=16)
    digest.update(len(is_kept).to_bytes(8, "little"))
    digest.update(np.packbits(is_kept).tobytes())
    return digest.hexdigest()


def write_keep_mask(
    path: Path,
    is_kept: npt.NDArray[np.bool_],
    document_tokens: npt.NDArray[np.int64],
    *,
    idx_fingerprint: str,
    scores_fingerprint: str,
) -> KeepMaskInfo:
    """Writes the mask and its `.json`, and returns the latter's content."""
    info = KeepMaskInfo(
        num_documents=len(is_kept),
        num_kept=int(is_kept.sum()),
        tokens_total=int(document_tokens.sum()),
        tokens_kept=int(document_tokens[is_kept].sum()),
        idx_fingerprint=idx_fingerprint,
        scores_fingerprint=scores_fingerprint,
        selection_digest=selection_digest(idx_fingerprint, is_kept),
    )
    content = io.BytesIO()  # numpy's own file writing hides from its error that the disk is full
    np.save(content, is_kept, allow_pickle=False)
    write_bytes(path, content.getvalue())
    write_json(path.with_suffix(".json"), asdict(info))
    return info


def read_keep_mask(path: Path) -> KeepMask:
    """Returns the mask at `path`; ValueError when it is not a mask or not what its `.json` says."""
    try:
        is_kept = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such keep mask. Make it with `mira select`."
        ) from error
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{path}: not a numpy bool array. Rebuild it with `mira select`."
        ) from error
    if is_kept.dtype != np.bool_ or is_kept.ndim != 1:
        raise ValueError(f"{path}: expected a 1-D bool array, got {is_kept.dtype} {is_kept.shape}")
    info_path = path.with_suffix(".json")
    try:
        info = KeepMaskInfo(**json.loads(info_path.read_text()))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{info_path}: no such file; a keep mask needs it to say which index it belongs to. "
            "Rebuild both with `mira select`."
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{info_path}: does not describe a keep mask ({error}). Rebuild it with `mira select`."
        ) from error
    if info.schema_version != SCHEMA_VERSION:
        raise ValueError(
            f"{info_path}: schema_version {info.schema_version}, expected {SCHEMA_VERSION}"
        )
    if (len(is_kept), int(is_kept.sum())) != (info.num_documents, info.num_kept):
        raise ValueError(
            f"{path}: {len(is_kept):,} entries with {int(is_kept.sum()):,} kept, but {info_path} "
            f"says {info.num_documents:,} with {info.num_kept:,}. Rebuild it with `mira select`."
        )
    if selection_digest(info.idx_fingerprint, is_kept) != info.selection_digest:
        raise ValueError(
            f"{path}: its decisions are not those that {info_path} describes (selection_digest "
            f"{info.selection_digest}). Rebuild it with `mira select`."
        )
    return KeepMask(path=path, is_kept=is_kept, info=info)


def check_keep_mask(
    mask: KeepMask, path_prefix: Path, *, num_documents: int, idx_fingerprint: str
) -> None:
    """Raises ValueError when the mask was made for another index than `<path_prefix>.idx`."""
    if len(mask.is_kept) != num_documents:
        raise ValueError(
            f"{mask.path}: keep mask has {len(mask.is_kept):,} entries but {path_prefix}.idx has "
            f"{num_documents:,} documents. Rebuild it with `mira select` against this dataset."
        )
    if mask.info.idx_fingerprint != idx_fingerprint:
        raise ValueError(
            f"{mask.path}: keep mask was made for an index with fingerprint "
            f"{mask.info.idx_fingerprint}, but {path_prefix}.idx has {idx_fingerprint} (both hold "
            f"{num_documents:,} documents). Rebuild it with `mira select` against this dataset."
        )
