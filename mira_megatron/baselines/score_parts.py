"""Record scores of a baseline, part by part, in the format of the scores that `aggregate` makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from mira_megatron.manifest import Counts
from mira_megatron.records import RECORD_SCORE_SCHEMA
from mira_megatron.shards import map_shards, read_part, write_parquet
from mira_megatron.stage import WorkResult, Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part that a baseline reads."""

    path: Path
    digest: str

    def rows(self, columns: Sequence[str]) -> pa.Table:
        """Returns columns of the part, checked against its manifest."""
        return read_part(self.path, self.digest, columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The scores of a part's records in their order: a number, or a reason why there is none."""

    record_ids: pa.ChunkedArray
    scores: Sequence[float | None]
    reasons: Sequence[str | None]


# Scores a part with the baseline's own settings; pickled, so a function of a module.
ScorePart = Callable[[Part, Any], Scores]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    part: Part
    output: Path
    score: ScorePart
    settings: Any


def parts_of(workspace: Workspace, folder: str) -> list[Part]:
    """Returns the parquet parts of a unit that this one reads."""
    return [
        Part(path=path, digest=part.digest)
        for path, part in workspace.upstream_parts(folder, ".parquet")
    ]


def write_scores(workspace: Workspace, folder: str, score: ScorePart, settings: Any) -> WorkResult:
    """Scores every part of a folder, in processes, and returns what came of it.

    Parts keep their names. A part that is there already is not made again.
    """
    tasks = [
        _Task(part=part, output=workspace.folder / part.path.name, score=score, settings=settings)
        for part in parts_of(workspace, folder)
    ]
    workers, title = workspace.resources.workers, workspace.unit.label
    counted = list(map_shards(_write_part, tasks, workers=workers, title=title))
    reasons: Counter[str | None] = sum(counted, Counter())
    num_records = reasons.total()
    num_scored = reasons.pop(None, 0)
    nulls = {f"null: {reason}": num for reason, num in sorted(reasons.items()) if reason}
    return WorkResult(
        counts=Counts(
            num_in=num_records, num_out=num_records, totals={"scored": num_scored, **nulls}
        ),
        rows={task.output.name: each.total() for task, each in zip(tasks, counted, strict=True)},
    )


def uniform_of(record_ids: Sequence[str], purpose: str) -> npt.NDArray[np.float64]:
    """Returns a number in (0, 1) per record: a hash of `purpose` and id, the same in any order."""
    prefix = f"{purpose}:".encode()
    hashes = [xxhash.xxh3_64_intdigest(prefix + name.encode()) >> 11 for name in record_ids]
    uniform = (np.array(hashes, np.float64) + 0.5) / 2.0**53
    # The highest hash rounds up to 1, where Gumbel noise is infinite.
    return np.minimum(uniform, 1 - 2.0**-53)


def _write_part(task: _Task) -> Counter[str | None]:
    if task.output.is_file():
        return Counter(pq.read_table(task.output, columns=["reason"])["reason"].to_pylist())
    found = task.score(task.part, task.settings)
    reasons = list(found.reasons)
    table = pa.Table.from_arrays(
        [found.record_ids, pa.array(found.scores, pa.float32()), pa.array(reasons, pa.string())],
        schema=RECORD_SCORE_SCHEMA,
    )
    write_parquet(task.output, table)
    return Counter(reasons)
