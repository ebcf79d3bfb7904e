"""What never reached a selection: rows dropped at ingest, and records not judged in full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import orjson
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.stage import Workspace

_FIRST_ROWS = 3  # malformed rows shown per source


@dataclass(frozen=True, kw_only=True, slots=True)
class MalformedRow:
    """One row that could not be read, as dropped.jsonl has it."""

    origin: str  # file and line
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestDrops:
    """The rows of one source that became no record."""

    source: str
    num_rows: int
    num_records: int
    dropped: tuple[tuple[str, int], ...]  # reason, rows
    first_malformed: tuple[MalformedRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class UnansweredRatings:
    """Ratings of one source with one status other than ok."""

    source: str
    status: str
    num_records: int
    commonest_reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RatingsOverview:
    """Who judged, and what came of it."""

    num_ratings: int
    models: tuple[str, ...]
    unanswered: tuple[UnansweredRatings, ...]
    by_source: tuple[tuple[str, Mapping[str, int]], ...]  # records by status, of every source


def read_ingest_drops(workspace: Workspace, sources: Sequence[str]) -> list[IngestDrops]:
    """Returns the drops of every source, those without any included."""
    return [_ingest_drops(workspace, source) for source in sources]


def _ingest_drops(workspace: Workspace, source: str) -> IngestDrops:
    folder = layout.records(source)
    counts = workspace.upstream_manifest(folder).counts
    with (workspace.run.folder / folder / "dropped.jsonl").open("rb") as lines:
        first = [MalformedRow(**orjson.loads(line)) for line in islice(lines, _FIRST_ROWS)]
    return IngestDrops(
        source=source,
        num_rows=counts.num_in,
        num_records=counts.num_out,
        dropped=tuple(sorted(counts.dropped.items())),
        first_malformed=tuple(first),
    )


def read_ratings_overview(
    workspace: Workspace, rubric: str, sources: Sequence[str]
) -> RatingsOverview:
    """Returns the models named in the ratings and, per source and status, what is not ok."""
    models: set[str] = set()
    unanswered: list[UnansweredRatings] = []
    by_source: list[tuple[str, Mapping[str, int]]] = []
    num_ratings = 0
    for source in sources:
        answers = _count_answers(workspace, rubric, source)
        num_ratings += answers.total()
        models.update(model for model, _, _ in answers)
        unanswered.extend(_unanswered(source, answers))
        statuses: Counter[str] = Counter()
        for (_, status, _), number in answers.items():
            statuses[status] += number
        by_source.append((source, statuses))
    return RatingsOverview(
        num_ratings=num_ratings,
        models=tuple(sorted(models)),
        unanswered=tuple(unanswered),
        by_source=tuple(by_source),
    )


def _count_answers(
    workspace: Workspace, rubric: str, source: str
) -> Counter[tuple[str, str, str | None]]:
    """Returns how many ratings have which model, status and reason."""
    answers: Counter[tuple[str, str, str | None]] = Counter()
    for path, _ in workspace.upstream_parts(layout.ratings(rubric, source), ".parquet"):
        # Not shards.read_part: a digest would read the rationales of the whole corpus for three
        # short columns, and aggregate has checked these bytes.
        table = pq.read_table(path, columns=["model", "status", "reason"])
        counted = table.group_by(["model", "status", "reason"]).aggregate([([], "count_all")])
        for row in counted.to_pylist():
            answers[row["model"], row["status"], row["reason"]] += row["count_all"]
    return answers


def _unanswered(
    source: str, answers: Counter[tuple[str, str, str | None]]
) -> list[UnansweredRatings]:
    reasons: dict[str, Counter[str | None]] = {}
    for (_, status, reason), num_records in answers.items():
        if status != "ok":
            reasons.setdefault(status, Counter())[reason] += num_records
    return [
        UnansweredRatings(
            source=source,
            status=status,
            num_records=counted.total(),
            commonest_reason=min(counted, key=lambda reason: (-counted[reason], str(reason))),
        )
        for status, counted in sorted(reasons.items())
    ]
