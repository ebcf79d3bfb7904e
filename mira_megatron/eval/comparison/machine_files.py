"""A comparison for programs: JSON with everything, and three tables as CSV.

A number that is not there is null (an empty field) with a reason beside it. Numbers of a published
table are texts, as printed. Percent and points throughout; p values and a task's shares are
fractions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from decimal import Decimal
from typing import Any

from mira_megatron.eval.comparison.comparison import UNPAIRED, Comparison, Published
from mira_megatron.eval.comparison.differences import ScoredArm
from mira_megatron.eval.comparison.pairs import FAMILIES, Pair
from mira_megatron.eval.statistics.intervals import CONFIDENCE
from mira_megatron.eval.statistics.power import LEVEL, POWER

FORMAT = 1

_SCORE_COLUMNS = (
    *("arm", "name", "value", "low", "high", "interval", "standard_error", "resolves", "highest"),
    *("num_runs", "num_tasks", "num_clusters", "num_samples", "is_subset", "fingerprint", "reason"),
)
_DIFFERENCE_COLUMNS = (
    *("baseline", "other", "name", "difference", "low", "high", "standard_error", "resolves"),
    *("test", "p", "p_holm", "num_gained", "num_lost", "is_unlike", "reason"),
)
_FLIP_COLUMNS = ("baseline", "other", "benchmark", "task_id", "cluster", "before", "after")


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Returns everything but the tasks that changed, which are in flips.csv."""
    return {
        "format": FORMAT,
        "confidence": CONFIDENCE,
        "test_level": LEVEL,
        "power": POWER,
        "resampling": asdict(comparison.resampling),
        "holm_families": {name: list(members) for name, members in FAMILIES.items()},
        "baseline": comparison.baseline,
        "arms": [_arm(each) for each in comparison.arms],
        "pairs": [_pair(pair) for pair in comparison.pairs],
        "unlike": {
            name: {field.field: dict(field.values) for field in fields}
            for name, fields in comparison.unlike.items()
        },
        "published": None if comparison.published is None else _published(comparison.published),
    }


def _arm(scored: ScoredArm) -> dict[str, Any]:
    arm = scored.arm
    return {
        "label": arm.label,
        "folders": [str(run.folder) for run in arm.runs],
        "scores": {name: _plain(score) for name, score in scored.scores.items()},
        "subscores": [_plain(each) for each in scored.subscores],
        "protocols": {
            name: {**_plain(protocol := arm.protocol(name)), "fingerprint": protocol.fingerprint}
            for name in arm.benchmarks
        },
    }


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "baseline": pair.baseline,
        "other": pair.other,
        "differences": {name: _plain(each) for name, each in pair.differences.items()},
    }


def _published(published: Published) -> dict[str, Any]:
    table = published.table
    return {
        "name": table.name,
        "source": table.source,
        "notes": list(table.notes),
        "rows": {row.label: _plain(row.stated) for row in table.rows},
        "audit": {
            "rows": [_plain(row) for row in published.audit.rows],
            "shares": [
                {**_plain(share), "is_attainable": share.is_attainable}
                for share in published.audit.shares
            ],
            "findings": list(published.audit.findings),
        },
        "kind": UNPAIRED,
        "beside": [_plain(each) for each in published.beside],
    }


def _plain(value: Any) -> Any:
    """Returns a record as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    match value:
        case Mapping():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case Decimal():
            return str(value)
        case _:
            return value


def scores_csv(comparison: Comparison) -> str:
    """Returns a row per arm and number."""
    return _csv(_SCORE_COLUMNS, _score_rows(comparison))


def _score_rows(comparison: Comparison) -> Iterable[Sequence[object]]:
    for each in comparison.arms:
        for score in each.scores.values():
            interval, graded = score.interval, score.graded
            yield [
                each.arm.label,
                score.name,
                _number(score.value),
                _number(None if interval is None else interval.low),
                _number(None if interval is None else interval.high),
                score.method,
                _number(score.error),
                _number(score.resolves),
                _number(score.highest),
                len(each.arm.runs),
                *(
                    (graded.num_tasks, graded.num_clusters, graded.num_samples, graded.is_subset)
                    if graded is not None
                    else ("", "", "", "")
                ),
                "" if graded is None else graded.fingerprint,
                score.reason or score.no_interval or "",
            ]


def differences_csv(comparison: Comparison) -> str:
    """Returns a row per pair and number."""
    return _csv(
        _DIFFERENCE_COLUMNS,
        (
            [
                pair.baseline,
                pair.other,
                each.name,
                _number(each.value),
                _number(None if each.interval is None else each.interval.low),
                _number(None if each.interval is None else each.interval.high),
                _number(each.error),
                _number(each.resolves),
                each.method,
                _number(each.p),
                _number(each.p_holm),
                "" if each.num_gained is None else each.num_gained,
                "" if each.num_lost is None else each.num_lost,
                each.is_unlike,
                each.reason or "",
            ]
            for pair in comparison.pairs
            for each in pair.differences.values()
        ),
    )


def flips_csv(comparison: Comparison) -> str:
    """Returns a row per pair and task that one of the two gets right more often."""
    return _csv(
        _FLIP_COLUMNS,
        (
            [
                pair.baseline,
                pair.other,
                flip.benchmark,
                flip.task_id,
                flip.cluster,
                _number(flip.baseline),
                _number(flip.other),
            ]
            for pair in comparison.pairs
            for flip in pair.flips
        ),
    )


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _number(number: float | None) -> str:
    return "" if number is None else f"{number:.6g}"
