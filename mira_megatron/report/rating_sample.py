"""A sample of ratings for the page, so that trimming and masking can be tried there.

Ratings are thousandths of a point as uint16, which is how aggregation counts them; 65535 stands for
a rating that is missing. Drawn per source among all that may be trained on, each alike.

Shape letters: R records of a sample, A anchor slots.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from mira_megatron import layout
from mira_megatron.records import NUM_SLOTS
from mira_megatron.reliability.trimmed_mean import NO_SCORE, UNITS_PER_POINT, trimmed_mean
from mira_megatron.stage import Workspace

MAX_RECORDS = 6000  # of all sources; some 200 kB in the page


@dataclass(frozen=True, kw_only=True, slots=True)
class RatingSample:
    """Some records of one source, or all of them."""

    num_documents: int  # it was drawn from
    rows_R: npt.NDArray[np.int64]  # documents, ascending
    tokens_R: npt.NDArray[np.uint32]
    ratings_RA: npt.NDArray[np.uint16]  # thousandths; NO_SCORE

    def encoded(self) -> dict[str, Any]:
        """Returns the sample for JSON: its arrays as base64 of little-endian numbers."""
        return {
            "numDocuments": self.num_documents,
            "tokens": base64.b64encode(self.tokens_R.astype("<u4").tobytes()).decode(),
            "ratings": base64.b64encode(self.ratings_RA.astype("<u2").tobytes()).decode(),
        }

    def scores(
        self, is_masked_A: Sequence[bool], *, trim_fraction: float, min_slots: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Returns the records' scores by a trim and masks, and which of them have one."""
        wanted = [slot for slot in range(NUM_SLOTS) if not is_masked_A[slot]]
        if not wanted:
            num_records = len(self.ratings_RA)
            return np.zeros(num_records, np.float32), np.zeros(num_records, np.bool_)
        columns = [self.ratings_RA[:, slot] for slot in wanted]
        return trimmed_mean(columns, trim_fraction=trim_fraction, min_slots=min_slots)


def draw(positions: npt.NDArray[np.int64], number: int, key: str) -> npt.NDArray[np.int64]:
    """Returns up to `number` of the positions, ascending; the key decides which, anywhere."""
    if len(positions) <= number:
        return positions
    chosen: dict[int, None] = {}
    attempt = 0
    while len(chosen) < number:
        chosen[xxhash.xxh3_64_intdigest(f"{key}:{attempt}".encode()) % len(positions)] = None
        attempt += 1
    return positions[sorted(chosen)]


def read_rating_samples(
    workspace: Workspace,
    rubric: str,
    sources: Sequence[str],
    documents: Mapping[str, pa.Table],
    seed: int,
) -> dict[str, RatingSample]:
    """Returns a sample of every source, of the same size where there are enough records."""
    samples = {}
    for source in sources:
        table = documents[source]
        trainable = np.flatnonzero(~table["repeats_held_out"].to_numpy())
        rows = draw(trainable, MAX_RECORDS // len(sources), f"{seed}:ratings:{source}")
        samples[source] = RatingSample(
            num_documents=len(trainable),
            rows_R=rows,
            tokens_R=table["num_tokens"].to_numpy()[rows].astype(np.uint32),
            ratings_RA=_read_ratings(workspace, layout.ratings(rubric, source), rows),
        )
    return samples


def _read_ratings(
    workspace: Workspace, folder: str, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint16]:
    """Returns the ratings of these rows over all parts of a folder, (len(rows), NUM_SLOTS)."""
    found = [np.empty((0, NUM_SLOTS), dtype=np.uint16)]
    start = 0
    for path, _ in workspace.upstream_parts(folder, ".parquet"):
        # Not shards.read_part: a digest would read the rationales of the whole corpus for one
        # short column, and aggregate has checked these bytes.
        scores = pq.read_table(path, columns=["scores"])["scores"]
        here = rows[(rows >= start) & (rows < start + len(scores))] - start
        start += len(scores)
        slots = scores.take(pa.array(here)).combine_chunks().flatten()
        units = np.rint(
            pc.fill_null(slots, 0.0).to_numpy(zero_copy_only=False).astype(np.float64)
            * UNITS_PER_POINT
        ).astype(np.uint16)
        units[pc.is_null(slots).to_numpy(zero_copy_only=False)] = NO_SCORE
        found.append(units.reshape(-1, NUM_SLOTS))
    return np.concatenate(found)
