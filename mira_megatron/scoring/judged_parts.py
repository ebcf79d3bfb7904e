"""The parts of a source whose records are to be judged, and the form in which they are.

What is asked about a record and what becomes of the answer is a form's business (free-form judging,
rating on anchors); who answers is judging.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.corpus.sampling import sample_ids
from mira_megatron.launchers.claims import Claims
from mira_megatron.records import RECORD_SCHEMA, Record, records_from_table
from mira_megatron.rubric.views import View
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.judge import Judge
from mira_megatron.scoring.questions import FAILURE_STATUSES, NOT_KEPT, Parsed, Reply, outcome
from mira_megatron.shards import map_shards, open_part, read_part
from mira_megatron.stage import Workspace

Row = TypeVar("Row")

# What a part that was interrupted may hold; anything else is asked about again.
SETTLED_FOR_GOOD = ("ok", "partial")
RECORDS_READ = 64  # at a time


class Form(Protocol[Row]):
    """What is asked about a record, and what becomes of the answer."""

    def messages(self, view_text: str) -> tuple[dict[str, str], ...]:
        """Returns the chat messages to send."""

    def judge_in_process(self, view_text: str) -> str:
        """Returns the rule judge's answer."""

    def example_answers(self) -> tuple[str, ...]:
        """Returns answers that every answer is pieced together from; none where they are free."""

    def read(self, answer: Answer) -> Parsed:
        """Returns what can be used of an answer; not asked of failures."""

    def row(self, record: Record, view: View, reply: Reply) -> Row:
        """Returns what is kept of the reply about one record."""

    def table(self, rows: Sequence[Row]) -> pa.Table:
        """Returns rows as a table, a row of it for each."""

    def write(self, output: Path, rows: pa.Table) -> None:
        """Writes a part; last of all `output`, with one row per record: status and reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedPart:
    """The records of one part that are to be judged."""

    records: Path
    digest: str
    output: Path  # see Form.write
    record_ids: frozenset[str] | None  # None: all
    num_records: int  # to be judged


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sampling:
    records: Path
    digest: str
    n: int
    seed: int
    purpose: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Judging:
    """Who judges a unit's records, in which form, and who else does."""

    form: Form[Any]
    judge: Judge
    title: str
    num_records: int  # of all the unit's parts
    claims: Claims | None  # None: this process alone works on the unit
    is_shared: bool  # others may ask with the same answers, if about other units
    earlier: Path | None  # the finished unit that is read again: nothing is asked

    @property
    def asks(self) -> bool:
        """Returns whether what is not known is asked."""
        return self.earlier is None

    def write(self, part: JudgedPart, rows: pa.Table) -> None:
        """Writes a part, unless another worker has."""
        if self.claims is None:
            self.form.write(part.output, rows)
        else:
            self.claims.deliver(part.output, lambda path: self.form.write(path, rows))

    def settled(self, part: JudgedPart, number: int, reply: Reply) -> Reply:
        """Returns the reply about a part's record; where none is kept, the failure that it had.

        Raises ValueError where it had none: then an answer is gone.
        """
        if self.earlier is None or reply.answer.failure != NOT_KEPT:
            return reply
        path = self.earlier / part.output.name
        row = _row_at(path, number)
        kind, _, detail = (row["reason"] or "").partition(": ")
        if row["status"] not in FAILURE_STATUSES:
            raise ValueError(
                f"{path}: record {row['record_id']} was answered, but {self.judge.answers} does "
                "not hold the answer, so it cannot be read again. Nothing is changed. Name the "
                "folder that it was scored with (score.answers_folder=...)."
            )
        answer = Answer(key=reply.key, failure=kind, failure_detail=detail)
        return Reply(key=reply.key, answer=answer, num_attempts=row["num_attempts"])

    def is_lost(self, part: JudgedPart) -> bool:
        """Returns whether another worker has taken a part over from this one."""
        return self.claims is not None and not self.claims.is_mine(part.output.name)


def all_parts(workspace: Workspace, source: str) -> list[JudgedPart]:
    """Returns every part of a source, all of its records to be judged."""
    return [
        JudgedPart(
            records=path,
            digest=part.digest,
            output=workspace.folder / part.path,
            record_ids=None,
            num_records=part.num_rows or 0,
        )
        for path, part in workspace.upstream_parts(layout.records(source), ".parquet")
    ]


def sampled_parts(
    workspace: Workspace, source: str, n: int, *, seed: int, purpose: str, stem: str = "part"
) -> list[JudgedPart]:
    """Returns the parts that hold a record of the source's sample; outputs begin with `stem`."""
    upstream = workspace.upstream_parts(layout.records(source), ".parquet")
    tasks = [
        _Sampling(records=path, digest=part.digest, n=n, seed=seed, purpose=purpose)
        for path, part in upstream
    ]
    workers = workspace.resources.workers
    title = f"sample {source}"
    of_parts = list(map_shards(_sample_part, tasks, workers=workers, title=title))
    sample = sample_ids(chain.from_iterable(of_parts), n, seed=seed, purpose=purpose)
    return [
        JudgedPart(
            records=path,
            digest=part.digest,
            output=workspace.folder / f"{stem}{part.path.removeprefix('part')}",
            record_ids=frozenset(sample & of_part),
            num_records=len(sample & of_part),
        )
        for (path, part), of_part in zip(upstream, of_parts, strict=True)
        if sample & of_part
    ]


def records_of(part: JudgedPart) -> Iterator[Record]:
    """Yields the part's records that are to be judged, in order, a few in memory at a time."""
    wanted = None
    if part.record_ids is not None:
        wanted = pa.array(sorted(part.record_ids), pa.string())
    with open_part(part.records, part.digest) as file:
        for batch in file.iter_batches(
            RECORDS_READ, columns=RECORD_SCHEMA.names, use_threads=False
        ):
            table = pa.Table.from_batches([batch])
            if wanted is not None:
                table = table.filter(pc.is_in(table["record_id"], value_set=wanted))
            yield from records_from_table(table)


def _row_at(path: Path, number: int) -> dict[str, Any]:
    """Returns how record `number` of a written part ended."""
    row: dict[str, Any] = _endings(path).slice(number, 1).to_pylist()[0]
    return row


@lru_cache(maxsize=4)
def _endings(path: Path) -> pa.Table:
    return pq.read_table(path, columns=["record_id", "status", "reason", "num_attempts"])


def outcomes_of(output: Path) -> Counter[str]:
    """Returns how many records of a written part ended how."""
    columns = pq.read_table(output, columns=["status", "reason"]).to_pydict()
    return Counter(map(outcome, columns["status"], columns["reason"]))


def _sample_part(task: _Sampling) -> set[str]:
    record_ids = read_part(task.records, task.digest, ["record_id"])["record_id"].to_pylist()
    return sample_ids(record_ids, task.n, seed=task.seed, purpose=task.purpose)
