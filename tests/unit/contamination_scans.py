"""Texts put through the scan, without files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mira_megatron.eval.contamination.arrays import I64, U8
from mira_megatron.eval.contamination.items import Item, Kind, Surface, TextForm
from mira_megatron.eval.contamination.needles import build_needles
from mira_megatron.eval.contamination.scan import batch_hits

SOLUTION = """
def count_even_rows(table, limit):
    found = 0
    for row in table:
        if sum(row) % 2 == 0 and len(row) < limit:
            found += 1
    return found
"""


def item(task_id: str = "a", *texts: str, form: TextForm = TextForm.CODE, **more: Any) -> Item:
    """Returns an item with a surface per text; tests, unless told."""
    kind = more.pop("kind", Kind.TESTS)
    return Item(
        **{"benchmark": "bench", "task_id": task_id, "cluster": task_id, **more},
        surfaces=tuple(Surface(kind=kind, form=form, text=text) for text in texts),
    )


def buffer_of(texts: Sequence[str]) -> tuple[U8, I64]:
    """Returns the bytes of texts, one behind the other, and where each begins."""
    contents = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, contents)])
    return np.frombuffer(b"".join(contents), dtype=np.uint8), offsets.astype(np.int64)


def hits(items: Sequence[Item], texts: Sequence[str], max_items: int = 10) -> list[dict[str, Any]]:
    """Returns the rows that a part of these texts gets; a record's id is its number."""
    columns = [
        pa.array([str(number) for number in range(len(texts))]),
        pa.array(texts, type=pa.large_string()),
    ]
    batch = pa.RecordBatch.from_arrays(columns, ["record_id", "text"])
    return list(batch_hits(batch, build_needles(items, max_items)))
