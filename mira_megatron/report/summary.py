"""What `mira run` and `mira status` say on the terminal; never fails because a stage is missing.

Names of sources and units are printed as plain text: square brackets in them are not markup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.grouping.source_groups import NotYetKnown, group_of_source
from mira_megatron.manifest import manifest_summary, read_manifest
from mira_megatron.reliability.mask import masked_scoring
from mira_megatron.report.agreement import is_measured
from mira_megatron.report.report import has_page
from mira_megatron.report.scorer_table import print_scorers
from mira_megatron.report.sensitivity_section import masked_arms, sensitivity_line
from mira_megatron.report.training_course import read_course
from mira_megatron.stage import Unit
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.written_numbers import decimal, grouped, percent, size
from mira_megatron.written_tables import terminal_table

Number = TypeVar("Number", int, float)

_STATE_STYLES = {
    "done": "green",
    "unfinished": "yellow",
    "waiting": "dim",
    "outdated": "yellow",
    "different": "red",
}
_STATE_MEANINGS = {
    "unfinished": "was interrupted and will be resumed",
    "outdated": "its inputs changed; it will be made anew",
    "different": "made with other settings; running it says which",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceLine:
    """One source in an arm's table; None is not known yet."""

    source: str
    source_group: str
    num_records: int | None
    num_tokens: int | None
    tokens_kept: int | None  # in one pass, each document as often as it is seen
    tokens_distinct: int | None  # each document once
    score_sum: float | None
    num_scored: int | None

    @property
    def mean_score(self) -> float | None:
        """Returns the mean over records that have a score."""
        if self.score_sum is None or not self.num_scored:
            return None
        return self.score_sum / self.num_scored


def print_summary(console: Console, recipe: Recipe) -> None:
    """Prints what a run made: a table per arm, its training, the scorers, and where to look."""
    tables = {arm: str(entry["score"]) for arm, entry in recipe.mapping("arms").items()}
    masked = masked_arms(tables, masked_scoring(recipe))
    for arm, table in tables.items():
        console.print(_arm_table(arm, source_lines(recipe, arm, table)))
        if arm in masked:
            _print_line(console, sensitivity_line(recipe.run_folder, arm))
        if "midtrain" in recipe.values:
            _print_line(console, training_line(recipe.run_folder, arm))
        if "instruct_sft" in recipe.values:
            _print_line(console, instruct_line(recipe.run_folder, arm))
        if "blend" in recipe.values:
            _print_path(console, "Blend", recipe.run_folder / layout.blend(arm) / layout.BLEND)
        else:
            selection = recipe.run_folder / layout.keep(arm) / layout.CERTIFICATE
            _print_path(console, "Selection", selection)
    if is_measured(recipe):
        print_scorers(console, recipe)
    if recipe.mapping("arms") and has_page(recipe):
        _print_path(console, "Report", recipe.run_folder / layout.REPORT / "index.html")
    rubric = recipe.run_folder / layout.anchors(recipe.rubric, "")
    if rubric.is_dir():
        _print_line(console, f"Rubric: mira rubric show {rubric}")


def print_status(console: Console, recipe: Recipe, states: Sequence[tuple[Unit, str]]) -> None:
    """Prints the state of every unit with what its manifest counts."""
    table = terminal_table(f"Units of {recipe.path.stem}")
    for heading in ("Stage", "Unit", "State"):
        table.add_column(heading, overflow="fold")
    for heading in ("In", "Out", "Size", "Seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for unit, state in states:
        counts = _unit_counts(recipe.run_folder / unit.folder)
        table.add_row(
            Text(unit.stage), Text(unit.name), Text(state, _STATE_STYLES.get(state, "")), *counts
        )
    console.print(table)
    _print_line(console, f"Run folder: {recipe.run_folder}")
    if not _has_groups(recipe):
        _print_line(console, "Source groups are still to be found; their units stand in by family")
    for state, number in Counter(state for _, state in states).items():
        meaning = _STATE_MEANINGS.get(state)
        _print_line(console, f"{number:,} {state}{f': {meaning}' if meaning else ''}")


def _has_groups(recipe: Recipe) -> bool:
    try:
        group_of_source(recipe)
    except NotYetKnown:
        return False
    return True


def source_lines(recipe: Recipe, arm: str, score_table: str) -> list[SourceLine]:
    """Returns what is known of every source under an arm, however far the run has come."""
    certificate = _read_json(recipe.run_folder / layout.keep(arm) / layout.CERTIFICATE) or {}
    decided = certificate.get("sources", {})
    groups = group_of_source(replace(recipe, is_provisional=True))
    groups |= {name: source.group or name for name, source in adopted_sources(recipe).items()}
    return [
        _source_line(recipe.run_folder, name, groups[name], score_table, decided.get(name, {}))
        for name in sorted(groups)
    ]


def _source_line(
    run_folder: Path, source: str, group: str, score_table: str, decided: dict[str, Any]
) -> SourceLine:
    tokens = read_manifest(run_folder / layout.tokens(source))
    # An adopted source has no records here, but a document for each that it once had.
    records = read_manifest(run_folder / layout.records(source)) or tokens
    score_sum, num_scored = _score_sum(run_folder / layout.record_scores(score_table, source))
    return SourceLine(
        source=source,
        source_group=_group_in_words(decided, group),
        num_records=None if records is None else records.counts.num_out,
        num_tokens=None if tokens is None else int(tokens.counts.totals["tokens"]),
        tokens_kept=decided.get("tokens_kept"),
        tokens_distinct=decided.get("tokens_distinct"),
        score_sum=score_sum,
        num_scored=num_scored,
    )


def _group_in_words(decided: dict[str, Any], group: str) -> str:
    """Returns the source's group, or how it is kept or left out where it is not ranked."""
    how = str(decided.get("how", "ranked"))
    return str(decided.get("source_group", group)) if how == "ranked" else how.replace("_", " ")


def _score_sum(folder: Path) -> tuple[float | None, int | None]:
    """Returns sum and number of a source's scores, or None twice where it is not scored yet."""
    manifest = read_manifest(folder)
    if manifest is None:
        return None, None
    score_sum, num_scored = 0.0, 0
    for part in manifest.parts:
        scores = pq.read_table(folder / part.path, columns=["score"])["score"]
        score_sum += pc.sum(scores).as_py() or 0.0
        num_scored += len(scores) - scores.null_count
    return score_sum, num_scored


def training_line(run_folder: Path, arm: str) -> str:
    """Returns one line about an arm's training."""
    return _course_line("Training", run_folder / layout.checkpoints(arm))


def instruct_line(run_folder: Path, arm: str) -> str:
    """Returns one line about the instruction tuning of an arm's model."""
    return _course_line("Instruction tuning", run_folder / layout.instruct(arm))


def _course_line(what: str, folder: Path) -> str:
    course = read_course(folder)
    if course is None:
        return _cluster_line(what, folder) or f"{what}: not done yet"
    return (
        f"{what}: {course.num_steps:,} steps, "
        f"loss {decimal(course.first_loss)} -> {decimal(course.last_loss)}, "
        f"validation loss {decimal(course.last_validation_loss)} (nats per token)"
    )


def _cluster_line(what: str, folder: Path) -> str | None:
    """Returns one line about a training on a cluster that was taken over; None where none was."""
    if read_manifest(folder) is None or not (folder / layout.TRAINING).is_file():
        return None
    content = orjson.loads((folder / layout.TRAINING).read_bytes())
    return (
        f"{what}: {content['num_steps']:,} steps, {content['num_train_tokens']:,} tokens, "
        f"by {content['recipe']}"
    )


def _arm_table(arm: str, lines: Sequence[SourceLine]) -> Table:
    # Names may fold; numbers keep to one line, and with it their alignment.
    table = terminal_table(f"Arm {arm}")
    for heading in ("Source", "Group"):
        table.add_column(heading, overflow="fold")
    for heading in ("Records", "Tokens", "Kept\ntokens", "Kept", "Mean\nscore"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*_cells(line))
    table.add_section()
    table.add_row(*_cells(_total(lines)))
    return table


def _cells(line: SourceLine) -> list[Text]:
    return [
        Text(line.source),
        Text(line.source_group),
        Text(grouped(line.num_records)),
        Text(grouped(line.num_tokens)),
        Text(grouped(line.tokens_kept)),
        Text(percent(line.tokens_distinct, line.num_tokens or 0)),
        Text(decimal(line.mean_score)),
    ]


def _total(lines: Sequence[SourceLine]) -> SourceLine:
    """Returns the sum over sources; unknown where it is unknown for one of them."""
    return SourceLine(
        source="all",
        source_group="",
        num_records=_sum(line.num_records for line in lines),
        num_tokens=_sum(line.num_tokens for line in lines),
        tokens_kept=_sum(line.tokens_kept for line in lines),
        tokens_distinct=_sum(line.tokens_distinct for line in lines),
        score_sum=_sum(line.score_sum for line in lines),
        num_scored=_sum(line.num_scored for line in lines),
    )


def _sum(numbers: Iterable[Number | None]) -> Number | None:
    total: Number | None = None
    for number in numbers:
        if number is None:
            return None
        total = number if total is None else total + number
    return total


def _unit_counts(folder: Path) -> list[Text]:
    manifest = read_manifest(folder)
    if manifest is None:
        return [Text("")] * 4
    summary = manifest_summary(manifest)
    return [
        Text(grouped(summary["num_in"])),
        Text(grouped(summary["num_out"])),
        Text(size(summary["size_bytes"])),
        Text(decimal(summary["seconds"], 1)),
    ]


def _print_line(console: Console, line: str) -> None:
    # A path that is cut into lines cannot be opened; so the terminal wraps, not rich.
    console.print(Text(line), soft_wrap=True)


def _print_path(console: Console, what: str, path: Path) -> None:
    _print_line(console, f"{what}: {path if path.is_file() else 'not written yet'}")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return content
