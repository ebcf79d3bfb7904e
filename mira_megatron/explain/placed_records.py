"""Where a record's tokens lie: in which `.bin` of its source, and in which prefix of a blend.

Reads   tokens/<source>/, blends/<arm>/blend.json, and the `.idx` files of the record's prefix

When a training reads them is told by `mira tokens trace --record`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.explain.located_records import LocatedRecord
from mira_megatron.manifest import read_manifest
from mira_megatron.provenance.traced_records import read_rows
from mira_megatron.provenance.traced_training import read_traced_blend
from mira_megatron.tokenization.blend_files import absolute_prefix
from mira_megatron.tokenization.index_file import bin_path, read_index
from mira_megatron.tokenization.token_dataset import TokenPrefix

_VIEW, _COPY = "index_view", "physical_copy"


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPlace:
    """Where a record's tokens lie in its source's token dataset."""

    prefix: str  # name, as of masks and blends
    bin: str  # path of the file
    document: int  # of the prefix, from 0
    byte_offset: int | None  # of its first token; None for a document without a sequence
    num_bytes: int
    num_tokens: int  # EOD included
    is_validation: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class BlendPlace:
    """Where an arm's blend lists a record."""

    split: str  # train, or valid where the record is held out
    handover: str
    prefix: str  # path, without .bin and .idx
    sequences: tuple[int, ...]  # of the prefix, from 0: Megatron counts these; repeats stand again
    bin: str  # that the prefix's .idx points into, links followed
    byte_offset: int | None  # of the first of these sequences


def token_place(located: LocatedRecord) -> TokenPlace | None:
    """Returns where a record's tokens lie, None where its source has none yet."""
    prefix, document = located.prefix, located.document
    if prefix is None or document is None:
        return None
    index = read_index(prefix.path_prefix)
    if index.num_documents != prefix.num_documents:
        raise ValueError(
            f"{prefix.path_prefix}.idx: {index.num_documents:,} documents, but "
            f"{prefix.documents} has {prefix.num_documents:,} rows. Make {prefix.source} anew."
        )
    first, end = index.document_indices_D[document : document + 2].tolist()
    num_tokens = int(index.lengths_S[first:end].sum(dtype=np.int64))
    row = read_rows([prefix.documents], np.array([document]), ["is_validation"])
    return TokenPlace(
        prefix=prefix.name,
        bin=str(bin_path(prefix.path_prefix)),
        document=document,
        byte_offset=int(index.pointers_S[first]) if end > first else None,
        num_bytes=num_tokens * index.dtype.itemsize,
        num_tokens=num_tokens,
        is_validation=row["is_validation"][0].as_py(),
    )


def blend_place(run_folder: Path, arm: str, located: LocatedRecord) -> BlendPlace | None:
    """Returns where an arm's blend lists a record; None where it does not, or is not made yet."""
    folder = run_folder / layout.blend(arm)
    if read_manifest(folder) is None or located.prefix is None or located.document is None:
        return None
    blend = read_traced_blend(run_folder, arm)
    name = located.prefix.name
    for trained in blend.trained:
        if trained.token_prefix.name == name:
            sequences = trained.origins().sequences_of(located.document)
            if len(sequences):
                return _place("train", trained.handover, trained.path_prefix, sequences)
    for entry in blend.content["entries"]:
        if entry["split"] == "valid" and entry["name"] == name:
            sequences = _held_out_sequences(located.prefix, located.document)
            if len(sequences):
                # Where training reads masks, what is held out is a view.
                handover = _COPY if blend.handover == _COPY else _VIEW
                prefix = Path(absolute_prefix(folder, entry["prefix"]))
                return _place("valid", handover, prefix, sequences)
    return None


def _held_out_sequences(prefix: TokenPrefix, document: int) -> npt.NDArray[np.int64]:
    """Returns the numbers of a document's sequences among those that are held out."""
    table = pq.read_table(prefix.documents, columns=["is_validation"])
    is_held_out_D = table["is_validation"].to_numpy()
    if not is_held_out_D[document]:
        return np.empty(0, dtype=np.int64)
    num_sequences_D = np.diff(read_index(prefix.path_prefix).document_indices_D)
    first = int(np.dot(num_sequences_D[:document], is_held_out_D[:document]))
    return np.arange(first, first + num_sequences_D[document])


def _place(
    split: str, handover: str, path_prefix: Path, sequences: npt.NDArray[np.int64]
) -> BlendPlace:
    index = read_index(path_prefix)
    if sequences[-1] >= len(index.lengths_S):
        raise ValueError(
            f"{path_prefix}.idx: {len(index.lengths_S):,} sequences, but the record should be "
            f"sequence {sequences[-1]:,}. The blend was made from another selection; make it anew."
        )
    return BlendPlace(
        split=split,
        handover=handover,
        prefix=str(path_prefix),
        sequences=tuple(sequences.tolist()),
        bin=str(bin_path(path_prefix).resolve()),
        byte_offset=int(index.pointers_S[sequences[0]]),
    )
