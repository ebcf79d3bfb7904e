"""Which documents bar a record because they hold the same text, or what it is a degraded copy of.

Reads   tokens/<source>/*.records.parquet of every source of the arm, keep/<other arm>/

Only looked for where a decision says that there are such: text hashes, like ids, are in no order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron import layout
from mira_megatron.explain.located_records import LocatedRecord, over_row_groups
from mira_megatron.provenance.traced_records import read_rows
from mira_megatron.retention.decisions import Decision
from mira_megatron.retention.keep_masks import read_keep_mask
from mira_megatron.tokenization.degraded_documents import copies_beside
from mira_megatron.tokenization.token_dataset import read_token_dataset

MAX_COPIES = 10  # told; one is enough to bar a record


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """Another document of the same text, or of the parent's where the record is degraded."""

    record_id: str
    source: str
    is_held_out: bool
    kept_by: tuple[str, ...]  # of the arms that this one goes without


def copies_that_bar(
    run_folder: Path, certificate: Mapping[str, Any], located: LocatedRecord, code: int
) -> tuple[Copy, ...]:
    """Returns the first documents of the record's text that are why an arm leaves it out.

    Held-out ones for a duplicate of these; for one in another arm what those arms keep, which may
    be the record itself. None for any other decision.
    """
    if code not in (Decision.DUPLICATE_OF_HELD_OUT, Decision.IN_ANOTHER_ARM):
        return ()
    assert located.prefix is not None
    assert located.document is not None
    texts = _texts(located.prefix.documents, located.document)
    prefixes = [
        prefix
        for source in certificate["sources"]
        for prefix in read_token_dataset(run_folder / layout.tokens(source)).prefixes
    ]

    def look(number: int, first: int, rows: pa.Table) -> list[tuple[int, int, bool]]:
        same = np.flatnonzero(pc.is_in(rows["text_hash"], texts).to_numpy())
        held_out = rows["is_validation"].take(pa.array(same)).to_pylist()
        return [
            (number, first + row, is_held_out)
            for row, is_held_out in zip(same.tolist(), held_out, strict=True)
        ]

    paths = [prefix.documents for prefix in prefixes]
    same_text = [
        each
        for found in over_row_groups(paths, ["text_hash", "is_validation"], look)
        for each in found
    ]
    copies: list[Copy] = []
    for number, document, is_held_out in same_text:
        prefix = prefixes[number]
        kept_by = tuple(
            arm
            for arm in certificate["without"]
            if read_keep_mask(run_folder / layout.keep(arm) / f"{prefix.name}.keep.npy").is_kept[
                document
            ]
        )
        is_why = is_held_out if code == Decision.DUPLICATE_OF_HELD_OUT else bool(kept_by)
        if is_why and len(copies) < MAX_COPIES:
            ids = read_rows([prefix.documents], np.array([document]), ["record_id"])
            copies.append(
                Copy(
                    record_id=ids["record_id"][0].as_py(),
                    source=prefix.source,
                    is_held_out=is_held_out,
                    kept_by=kept_by,
                )
            )
    return tuple(copies)


def _texts(documents: Path, document: int) -> pa.Array:
    """Returns the hashes of a document's text: of a degraded copy its parent's and its own."""
    texts = read_rows([documents], np.array([document]), ["text_hash"])["text_hash"]
    copies = copies_beside(documents)
    if copies is None:
        return texts.combine_chunks()
    own = copies.filter(pc.equal(copies["document"], document))["own_text_hash"]
    return pa.concat_arrays([*texts.chunks, *own.chunks])
