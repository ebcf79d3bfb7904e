"""Keep masks made elsewhere: licences, decontamination, a team's own list.

    with_masks:
      licence: masks/{source}.keep.npy
      team: {path: allowed.parquet, unlisted: drop}

An array has one bool per document, True = keep; `{source}` is replaced by the name of each token
prefix (<source>, or <source>.0 … of a source with several). A `.keep.json` beside it must fit the
index. A table, parquet or CSV, has columns `record_id` and `keep` (bool, or 0 and 1), one for all
sources or one per source; what becomes of documents it does not list must be said, unless it lists
all. A document is a candidate where every mask keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from mira_megatron.config import Recipe, check_name, typed
from mira_megatron.retention.keep_masks import check_keep_mask, read_keep_mask
from mira_megatron.shards import file_digest
from mira_megatron.tokenization.token_dataset import TokenPrefix

PLACEHOLDER = "{source}"
UNLISTED_KEEP, UNLISTED_DROP = "keep", "drop"
_ENDINGS = (".npy", ".parquet", ".csv")


@dataclass(frozen=True, kw_only=True, slots=True)
class _MaskConfig:
    path: str
    unlisted: str | None = None

    def __post_init__(self) -> None:
        if self.unlisted not in (None, UNLISTED_KEEP, UNLISTED_DROP):
            raise ValueError(f"unlisted={self.unlisted!r} must be keep or drop")
        if not self.path.endswith(_ENDINGS):
            raise ValueError(f"path={self.path!r} must end in one of {', '.join(_ENDINGS)}")
        if self.path.endswith(".npy") and PLACEHOLDER not in self.path:
            raise ValueError(
                f"path={self.path!r}: an array belongs to one index, so its name must hold "
                f"{PLACEHOLDER}"
            )
        if self.path.endswith(".npy") and self.unlisted is not None:
            raise ValueError("unlisted: an array has a value for every document")


@dataclass(frozen=True, kw_only=True, slots=True)
class OutsideMask:
    """One mask made elsewhere."""

    reason: str  # what it stands for
    path: Path  # may hold the placeholder
    unlisted: str | None  # of a table: what becomes of documents that it does not list
    where: str  # in which recipe it is named

    @property
    def is_array(self) -> bool:
        """Returns whether it is an array per prefix; else it is a table."""
        return self.path.suffix == ".npy"

    @property
    def is_per_source(self) -> bool:
        """Returns whether it is a file per source or prefix, and not one for all."""
        return PLACEHOLDER in str(self.path)

    def path_of(self, name: str) -> Path:
        """Returns the file of one source or prefix; FileNotFoundError where there is none."""
        path = Path(str(self.path).replace(PLACEHOLDER, name))
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.where}: {path}: no such mask; every source needs one. A table with "
                "`unlisted: keep` may list some documents only."
            )
        return path


def outside_masks(
    recipe: Recipe, where: str, with_masks: Mapping[str, object]
) -> tuple[OutsideMask, ...]:
    """Returns the masks an arm names, sorted by reason; ValueError says which entry is wrong."""
    masks = []
    for reason, entry in sorted(with_masks.items()):
        here = f"{where}.with_masks.{reason}"
        check_name(here, reason)
        values = entry if isinstance(entry, Mapping) else {"path": entry}
        config = typed(_MaskConfig, values, where=here)
        masks.append(
            OutsideMask(
                reason=reason,
                path=recipe.path_of(config.path),
                unlisted=config.unlisted,
                where=here,
            )
        )
    return tuple(masks)


def mask_digests(
    masks: Sequence[OutsideMask], prefix_names: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Returns the digest of every file of the masks, by reason and source, prefix or neither.

    `prefix_names` are those of the sources that are trained on, by source.
    """
    digests = {}
    for mask in masks:
        names = [name for of_source in prefix_names.values() for name in of_source]
        if not mask.is_array:
            names = list(prefix_names) if mask.is_per_source else [""]
        for name in names:
            path = mask.path_of(name)
            digests[f"mask {mask.reason} {name}".strip()] = file_digest(path)
            if mask.is_array and path.with_suffix(".json").is_file():
                digests[f"mask {mask.reason} {name} json"] = file_digest(path.with_suffix(".json"))
    return digests


def denials(
    masks: Sequence[OutsideMask],
    tables: Mapping[str, pa.Table],
    prefixes: Mapping[str, Sequence[TokenPrefix]],
    left_out: Collection[str] = (),
) -> dict[str, list[npt.NDArray[np.bool_]]]:
    """Returns by source, per mask, which of its documents the mask drops.

    `tables` hold the documents (column record_id) of all sources. Of those in `left_out`, which
    are not trained on, a mask may say something or nothing. Raises ValueError for a mask that does
    not fit.
    """
    asked = [source for source in tables if source not in left_out]
    found: dict[str, list[npt.NDArray[np.bool_]]] = {source: [] for source in asked}
    for mask in masks:
        kept: dict[str, npt.NDArray[np.bool_]] = {}
        if mask.is_array:
            kept = {source: _kept_by_arrays(mask, prefixes[source]) for source in asked}
        elif mask.is_per_source:
            for source in asked:
                own = {source: tables[source]}
                kept |= _kept_by_table(mask, mask.path_of(source), own, asked)
        else:
            kept = _kept_by_table(mask, mask.path_of(""), tables, asked)
        for source, is_dropped in found.items():
            is_dropped.append(~kept[source])
    return found


def _kept_by_arrays(mask: OutsideMask, prefixes: Sequence[TokenPrefix]) -> npt.NDArray[np.bool_]:
    return np.concatenate([_kept_by_array(mask.path_of(each.name), each) for each in prefixes])


def _kept_by_array(path: Path, prefix: TokenPrefix) -> npt.NDArray[np.bool_]:
    if path.with_suffix(".json").is_file():
        described = read_keep_mask(path)
        check_keep_mask(
            described,
            prefix.path_prefix,
            num_documents=prefix.num_documents,
            idx_fingerprint=prefix.idx_fingerprint,
        )
        return described.is_kept
    try:
        is_kept_D: npt.NDArray[np.bool_] = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a numpy array ({error}). Expected one bool each") from error
    if is_kept_D.dtype != np.bool_ or is_kept_D.shape != (prefix.num_documents,):
        raise ValueError(
            f"{path}: expected {prefix.num_documents:,} bools, one per document of "
            f"{prefix.path_prefix}.idx, got {is_kept_D.dtype} {is_kept_D.shape}. Make it for this "
            "index."
        )
    return is_kept_D


def _kept_by_table(
    mask: OutsideMask, path: Path, tables: Mapping[str, pa.Table], asked: Collection[str]
) -> dict[str, npt.NDArray[np.bool_]]:
    ids, is_kept_R = _read_table(path)
    is_used_R = np.zeros(len(ids), dtype=np.bool_)
    found = {}
    for source, table in tables.items():
        names = table["record_id"].cast(pa.large_string())
        rows = pc.index_in(names, ids)
        is_listed_D = pc.is_valid(rows).to_numpy()
        if mask.unlisted is None and source in asked and not is_listed_D.all():
            first = names[int(np.argmin(is_listed_D))].as_py()
            raise ValueError(
                f"{path}: lists {int(is_listed_D.sum()):,} of the {len(names):,} documents of "
                f"{source}; {first!r} is not among them. Say what becomes of the others: "
                f"{mask.where}: {{path: {path.name}, unlisted: keep}}, or drop."
            )
        row_D = pc.fill_null(rows, 0).to_numpy()
        listed_rows = row_D[is_listed_D]
        is_used_R[listed_rows] = True
        is_kept_D = np.full(len(names), mask.unlisted == UNLISTED_KEEP)
        is_kept_D[is_listed_D] = is_kept_R[listed_rows]
        found[source] = is_kept_D
    if not is_used_R.all():
        first = ids[int(np.argmin(is_used_R))].as_py()
        raise ValueError(
            f"{path}: {int((~is_used_R).sum()):,} of its {len(ids):,} ids are no document's, such "
            f"as {first!r}. Expected ids of {', '.join(tables)}; take the others out."
        )
    return found


def _read_table(path: Path) -> tuple[pa.ChunkedArray, npt.NDArray[np.bool_]]:
    """Returns the ids of a table and whether each is kept; ValueError for what is no such table."""
    try:
        if path.suffix == ".csv":
            as_text = pyarrow.csv.ConvertOptions(column_types={"record_id": pa.string()})
            table = pyarrow.csv.read_csv(path, convert_options=as_text)
        else:
            table = pq.read_table(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: not a readable {path.suffix[1:]} table ({error})") from error
    for column in ("record_id", "keep"):
        if column not in table.column_names:
            raise ValueError(
                f"{path}: no column {column!r}; expected record_id and keep, it has "
                f"{', '.join(table.column_names)}"
            )
    ids, keep = table["record_id"].cast(pa.large_string()), table["keep"]
    if ids.null_count or keep.null_count:
        raise ValueError(f"{path}: has rows without a record_id or without a keep. Fill them in.")
    if (
        pa.types.is_integer(keep.type)
        and pc.all(pc.is_in(keep, pa.array([0, 1], keep.type))).as_py()
    ):
        keep = keep.cast(pa.bool_())
    if len(keep) and not pa.types.is_boolean(keep.type):
        raise ValueError(f"{path}: keep must be true or false, or 1 or 0, got {keep.type}")
    if pc.count_distinct(ids).as_py() != len(ids):
        counts = pc.value_counts(ids.combine_chunks())
        twice = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
        first = twice[0]["values"].as_py()
        raise ValueError(f"{path}: {first!r} is listed more than once. Keep one row per record.")
    return ids, keep.cast(pa.bool_()).to_numpy()
