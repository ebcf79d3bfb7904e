"""What became of every source's questions: how many records were judged in full, in part, or not.

Reads   teacher_ratings/<rubric>/<source> and ratings/<rubric>/<source>, finished or not: three
        short columns of every part, batch by batch

A failed record's kind is what its reason begins with (scoring.questions). Reasons are a server's
words: on a terminal they are shown on one line, without control characters, and cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.manifest import MANIFEST
from mira_megatron.records import RATING_STATUSES
from mira_megatron.scoring.questions import outcome
from mira_megatron.written_numbers import grouped
from mira_megatron.written_tables import terminal_table

_FOLDERS: dict[str, Callable[[str, str], str]] = {
    "label": layout.teacher_ratings,
    "score": layout.ratings,
}
STAGES = tuple(_FOLDERS)
_FAILED = "failed: "  # how an outcome begins that names its kind
_BATCH_ROWS = 1 << 16
_MAX_REASON_CHARS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """The first record of a source that was not judged in full."""

    record_id: str
    status: str
    reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOutcomes:
    """What became of one source's questions in one stage."""

    stage: str
    source: str
    is_finished: bool  # or these are the parts written so far
    num_records: int
    num_by_status: dict[str, int]  # every one of RATING_STATUSES
    failed_by_kind: dict[str, int]  # most first
    first_example: Example | None

    @property
    def num_not_ok(self) -> int:
        """Returns how many records were not judged in full."""
        return self.num_records - self.num_by_status["ok"]


def read_outcomes(recipe: Recipe, stages: Sequence[str] = STAGES) -> list[SourceOutcomes]:
    """Returns the outcomes of every source that a stage has written parts of, in running order."""
    folders = [
        (stage, source, recipe.run_folder / _FOLDERS[stage](recipe.rubric, source))
        for stage in stages
        for source in recipe.mapping("sources")
    ]
    return [
        _outcomes(stage, source, folder)
        for stage, source, folder in folders
        if any(folder.glob("part-*.parquet"))
    ]


def print_outcomes(console: Console, outcomes: Sequence[SourceOutcomes]) -> None:
    """Prints a table per stage, and below it the first record of a source that is not in order."""
    if not outcomes:
        console.print(Text("Nothing is labelled or scored yet."))
    for stage in dict.fromkeys(each.stage for each in outcomes):
        of_stage = [each for each in outcomes if each.stage == stage]
        console.print(_table(stage, of_stage))
        for each in of_stage:
            for line in _lines(each):
                console.print(Text(line), soft_wrap=True)


def outcomes_json(outcomes: Sequence[SourceOutcomes]) -> str:
    """Returns the outcomes as indented JSON, one object per stage and source."""
    return orjson.dumps([asdict(each) for each in outcomes], option=orjson.OPT_INDENT_2).decode()


def _outcomes(stage: str, source: str, folder: Path) -> SourceOutcomes:
    counted: Counter[str] = Counter()
    example: Example | None = None
    for path in sorted(folder.glob("part-*.parquet")):
        for table in _tables(path):
            counted += _count(table)
            example = example or _first_not_ok(table)
    failed = {kind: num for kind, num in counted.most_common() if kind.startswith(_FAILED)}
    by_status = {status: counted[status] for status in RATING_STATUSES}
    by_status["failed"] += sum(failed.values())
    return SourceOutcomes(
        stage=stage,
        source=source,
        is_finished=(folder / MANIFEST).is_file(),
        num_records=counted.total(),
        num_by_status=by_status,
        failed_by_kind={kind.removeprefix(_FAILED): num for kind, num in failed.items()},
        first_example=example,
    )


def _tables(path: Path) -> Iterator[pa.Table]:
    try:
        for batch in pq.ParquetFile(path).iter_batches(
            batch_size=_BATCH_ROWS, columns=["record_id", "status", "reason"]
        ):
            yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{path}: not a part of ratings ({error}). Delete {path.parent} to have it made anew; "
            "answers that were paid for are kept elsewhere."
        ) from error


def _count(table: pa.Table) -> Counter[str]:
    rows = table.group_by(["status", "reason"]).aggregate([([], "count_all")]).to_pylist()
    counted: Counter[str] = Counter()
    for row in rows:
        counted[outcome(row["status"], row["reason"])] += row["count_all"]
    return counted


def _first_not_ok(table: pa.Table) -> Example | None:
    rows = table.filter(pc.not_equal(table["status"], "ok")).slice(0, 1).to_pylist()
    return Example(**rows[0]) if rows else None


def _table(stage: str, outcomes: Sequence[SourceOutcomes]) -> Table:
    # Names may fold; numbers keep to one line, and with it their alignment.
    table = terminal_table(f"Outcomes of {stage}")
    table.add_column("Source", overflow="fold")
    for heading in ("Records", *(status.replace("_", " ") for status in RATING_STATUSES)):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in outcomes:
        name = each.source if each.is_finished else f"{each.source} (so far)"
        table.add_row(Text(name), *_numbers(each.num_records, each.num_by_status))
    if len(outcomes) > 1:
        together: Counter[str] = sum((Counter(each.num_by_status) for each in outcomes), Counter())
        table.add_section()
        table.add_row(Text("all"), *_numbers(together.total(), together))
    return table


def _numbers(num_records: int, num_by_status: Counter[str] | dict[str, int]) -> list[Text]:
    numbers = (num_records, *(num_by_status[status] for status in RATING_STATUSES))
    return [Text(grouped(number)) for number in numbers]


def _lines(outcomes: SourceOutcomes) -> list[str]:
    lines: list[str] = []
    if outcomes.failed_by_kind:
        kinds = [f"{_shown(kind)} {num:,}" for kind, num in outcomes.failed_by_kind.items()]
        lines.append(f"{outcomes.source}: failed by {', '.join(kinds)}")
    if outcomes.first_example is not None:
        example = outcomes.first_example
        reason = _shown(example.reason or "no reason given")
        lines.append(f"{outcomes.source}: first {example.status}, {example.record_id}: {reason}")
    return lines


def _shown(text: str) -> str:
    """Returns a stranger's words as they can be shown on a terminal."""
    line = "".join(char if char.isprintable() else " " for char in text[: 2 * _MAX_REASON_CHARS])
    short = " ".join(line.split())
    return short if len(short) <= _MAX_REASON_CHARS else f"{short[: _MAX_REASON_CHARS - 1]}…"
