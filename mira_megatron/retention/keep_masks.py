"""Keep masks: one bool per document of a token dataset, True = keep.

`<name>.keep.npy` holds the mask, `<name>.keep.json` beside it what it belongs to. Where documents
are to be read several times in one pass, `<name>.repeats.npy` says how often each is: uint8, at
least 1 where the mask keeps and 0 elsewhere. A mask is never applied to an index other than the one
it was made for. Standard library and numpy only.

Shape letters: D documents.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    tokens_kept: int  # in one pass over the selection: repeats count
    idx_fingerprint: str  # of the .idx the mask was made for
    scores_fingerprint: str  # of the record scores behind it
    selection_digest: str  # of the index and the mask: names views, keys Megatron's cache
    has_repeats: bool = False  # so that a repeats file that was lost is missed
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepMask:
    """A mask that was read together with its description."""

    path: Path
    is_kept: npt.NDArray[np.bool_]
    info: KeepMaskInfo
    repeats_D: npt.NDArray[np.uint8] | None = None  # None: every kept document once


def repeats_path(path: Path) -> Path:
    """Returns where the repeats of the mask at `path` lie: `<name>.repeats.npy` beside it."""
    return path.with_name(f"{path.name.removesuffix('.npy').removesuffix('.keep')}.repeats.npy")


def selection_digest(
    idx_fingerprint: str,
    is_kept: npt.NDArray[np.bool_],
    repeats_D: npt.NDArray[np.uint8] | None = None,
) -> str:
    """Returns 32 hex digits that change with the index or with any document's decision."""
    digest = hashlib.blake2b(idx_fingerprint.encode(), digest_size=16)
    digest.update(len(is_kept).to_bytes(8, "little"))
    digest.update(np.packbits(is_kept).data)
    if repeats_D is not None:
        digest.update(np.ascontiguousarray(repeats_D).data)
    return digest.hexdigest()


def write_keep_mask(
    path: Path,
    is_kept: npt.NDArray[np.bool_],
    document_tokens: npt.NDArray[np.int64],
    *,
    idx_fingerprint: str,
    scores_fingerprint: str,
    repeats_D: npt.NDArray[np.uint8] | None = None,
) -> KeepMaskInfo:
    """Writes the mask, its repeats if there are any, and its `.json`, whose content it returns.

    Raises ValueError for repeats that are not at least 1 exactly where the mask keeps.
    """
    if repeats_D is not None:
        _check_repeats(repeats_path(path), repeats_D, is_kept)
    kept_tokens = document_tokens[is_kept]
    times = 1 if repeats_D is None else repeats_D[is_kept]
    info = KeepMaskInfo(
        num_documents=len(is_kept),
        num_kept=int(is_kept.sum()),
        tokens_total=int(document_tokens.sum()),
        tokens_kept=int((kept_tokens * times).sum()),
        idx_fingerprint=idx_fingerprint,
        scores_fingerprint=scores_fingerprint,
        selection_digest=selection_digest(idx_fingerprint, is_kept, repeats_D),
        has_repeats=repeats_D is not None,
    )
    _write_array(path, is_kept)
    if repeats_D is None:
        repeats_path(path).unlink(missing_ok=True)
    else:
        _write_array(repeats_path(path), repeats_D)
    write_json(path.with_suffix(".json"), asdict(info))
    return info


def read_keep_mask(path: Path) -> KeepMask:
    """Returns the mask at `path`; ValueError when it is not a mask or not what its `.json` says."""
    is_kept = _read_array(path, "keep mask")
    if is_kept.dtype != np.bool_ or is_kept.ndim != 1:
        raise ValueError(f"{path}: expected a 1-D bool array, got {is_kept.dtype} {is_kept.shape}")
    info = _read_info(path.with_suffix(".json"))
    if (len(is_kept), int(is_kept.sum())) != (info.num_documents, info.num_kept):
        raise ValueError(
            f"{path}: {len(is_kept):,} entries with {int(is_kept.sum()):,} kept, but "
            f"{path.with_suffix('.json')} says {info.num_documents:,} with {info.num_kept:,}. "
            "Rebuild it with `mira select`."
        )
    repeats_D = _read_repeats(path, is_kept, info)
    if selection_digest(info.idx_fingerprint, is_kept, repeats_D) != info.selection_digest:
        raise ValueError(
            f"{path}: its decisions are not those that {path.with_suffix('.json')} describes "
            f"(selection_digest {info.selection_digest}). Rebuild it with `mira select`."
        )
    return KeepMask(path=path, is_kept=is_kept, info=info, repeats_D=repeats_D)


def write_decisions(path: Path, decisions_D: npt.NDArray[np.uint8]) -> None:
    """Writes what became of each document, one code each; the certificate names the codes."""
    _write_array(path, decisions_D)


def read_decisions(path: Path, num_documents: int) -> npt.NDArray[np.uint8]:
    """Returns the codes of a prefix's documents; ValueError when there is not one for each."""
    decisions_D = _read_array(path, "decisions of a selection")
    if decisions_D.dtype != np.uint8 or decisions_D.shape != (num_documents,):
        raise ValueError(
            f"{path}: expected {num_documents:,} decisions as uint8, got {decisions_D.dtype} "
            f"{decisions_D.shape}. Rebuild it with `mira select`."
        )
    return decisions_D


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


def _write_array(path: Path, array: npt.NDArray[np.bool_] | npt.NDArray[np.uint8]) -> None:
    content = io.BytesIO()  # numpy's own file writing hides from its error that the disk is full
    np.save(content, array, allow_pickle=False)
    write_bytes(path, content.getbuffer())


def _read_array(path: Path, called: str) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such {called}. Make it with `mira select`.") from error
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a numpy array. Rebuild it with `mira select`.") from error
    return array


def _read_info(path: Path) -> KeepMaskInfo:
    try:
        info = KeepMaskInfo(**json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: no such file; a keep mask needs it to say which index it belongs to. "
            "Rebuild both with `mira select`."
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: does not describe a keep mask ({error}). Rebuild it with `mira select`."
        ) from error
    if info.schema_version != SCHEMA_VERSION:
        raise ValueError(f"{path}: schema_version {info.schema_version}, expected {SCHEMA_VERSION}")
    return info


def _read_repeats(
    path: Path, is_kept: npt.NDArray[np.bool_], info: KeepMaskInfo
) -> npt.NDArray[np.uint8] | None:
    if not info.has_repeats:
        return None
    repeats_D = _read_array(repeats_path(path), "repeats of a keep mask")
    _check_repeats(repeats_path(path), repeats_D, is_kept)
    return repeats_D


def _check_repeats(path: Path, repeats_D: npt.NDArray[Any], is_kept: npt.NDArray[np.bool_]) -> None:
    if repeats_D.dtype != np.uint8 or repeats_D.shape != is_kept.shape:
        raise ValueError(
            f"{path}: expected {len(is_kept):,} repeats as uint8, one per document, got "
            f"{repeats_D.dtype} {repeats_D.shape}"
        )
    if (wrong := np.flatnonzero((repeats_D > 0) != is_kept)).size:
        raise ValueError(
            f"{path}: document {wrong[0]:,} is repeated {repeats_D[wrong[0]]} times, but the mask "
            f"{'keeps' if is_kept[wrong[0]] else 'drops'} it. Expected at least 1 exactly where it "
            "is kept. Rebuild both with `mira select`."
        )
