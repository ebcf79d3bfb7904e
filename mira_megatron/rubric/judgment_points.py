"""Judgments as points to be clustered: equal "dimension: reason" strings are one counted point.

Points are sorted by their text and judgments by point, source, record and score, so nothing here
depends on the order in which judgments were read.

Shapes: J judgments, U points (unique strings), D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mira_megatron.grouping.unit_vectors import Floats, unit_rows
from mira_megatron.rubric.weighted_kmeans import Indices

Embed = Callable[[Sequence[str]], Floats]

_TEXT = "text"


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """The judgments of one part, and the points that they are."""

    part: str | None
    judgments: pa.Table  # JUDGMENT_SCHEMA and the text; J rows, sorted
    point_J: Indices
    first_U: Indices  # the first judgment of each point
    weight_U: NDArray[np.float64]  # judgments per point
    dimension_U: tuple[str, ...]
    vector_UD: Floats  # unit vectors


def points_by_part(
    judgments: pa.Table, parts: Sequence[str | None], embed: Embed, *, least: int, where: str
) -> list[Points]:
    """Returns the points of each part; all strings are embedded together.

    Raises ValueError, before anything is embedded, for a part with fewer than `least` points.
    """
    judgments = _sorted(judgments)
    tables = [_of_part(judgments, part) for part in parts]
    texts = [pc.unique(table[_TEXT]) for table in tables]
    for part, found in zip(parts, texts, strict=True):
        if len(found) < least:
            raise too_few(where, part, "distinct judgments", len(found), least)
    every = pc.unique(pa.chunked_array(texts, pa.string()))
    every = every.take(pc.sort_indices(every))
    vector_XD = unit_rows(embed(every.to_pylist()))
    return [
        _points(part, table, vector_XD[pc.index_in(found, every).to_numpy()])
        for part, table, found in zip(parts, tables, texts, strict=True)
    ]


def too_few(where: str, part: str | None, what: str, found: int, least: int) -> ValueError:
    """Returns the error for judgments that do not make enough clusters."""
    of_part = f" part {part}:" if part else ""
    return ValueError(
        f"{where}:{of_part} {found:,} {what}, but {least} anchors need at least {least}. Give the "
        "group's anchors with scorers.<group>.anchors_path; or raise discover.records_per_source, "
        "or pin its sources to a larger group with `group:`, under a new rubric=NAME (what a "
        "teacher has answered is not asked again)"
    )


def _sorted(judgments: pa.Table) -> pa.Table:
    dimension, reason = (judgments[name].cast(pa.string()) for name in ("dimension", "reason"))
    texts = pc.binary_join_element_wise(dimension, reason, ": ")
    keys = [(name, "ascending") for name in (_TEXT, "dimension", "source", "record_id", "score")]
    return judgments.append_column(_TEXT, texts).sort_by(keys).combine_chunks()


def _of_part(judgments: pa.Table, part: str | None) -> pa.Table:
    column = judgments["part"]
    return judgments.filter(pc.is_null(column) if part is None else pc.equal(column, part))


def _points(part: str | None, judgments: pa.Table, vector_UD: Floats) -> Points:
    # Sorted by text: a point's judgments follow one another, and points come in order.
    encoded = judgments[_TEXT].combine_chunks().dictionary_encode()
    point_J = encoded.indices.to_numpy().astype(np.int64)
    first_U = np.searchsorted(point_J, np.arange(len(encoded.dictionary)))
    return Points(
        part=part,
        judgments=judgments,
        point_J=point_J,
        first_U=first_U,
        weight_U=np.bincount(point_J).astype(np.float64),
        dimension_U=tuple(judgments["dimension"].take(pa.array(first_U)).to_pylist()),
        vector_UD=vector_UD,
    )
