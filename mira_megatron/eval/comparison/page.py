"""A comparison as one page for people: self-contained, nothing fetched, no script at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mira_megatron.eval.comparison.comparison import UNPAIRED, Comparison
from mira_megatron.eval.comparison.differences import Difference, Flip
from mira_megatron.eval.comparison.pairs import Pair
from mira_megatron.eval.comparison.scores import Score, num_lost
from mira_megatron.eval.comparison.table import (
    BENCHMARKS,
    CATEGORIES,
    MACRO,
    MICRO,
    SUMMARY,
    title_of,
)
from mira_megatron.eval.comparison.written import (
    interval_text,
    p_text,
    percent_text,
    points_interval_text,
    points_text,
    verdict_text,
)
from mira_megatron.eval.statistics.intervals import Interval
from mira_megatron.report.rendering import render

MAX_FLIPS = 60  # of a benchmark and pair; all of them are in flips.csv
_BAR_WIDTH = 200.0
_ROOM = 0.06  # of the range, beside the outermost interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """An interval and its middle on a common scale, in units of an SVG that is 200 wide."""

    low: float
    middle: float
    high: float
    zero: float | None = None  # where no difference is, if that is on the scale


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One number of one arm, with its interval drawn."""

    label: str
    score: Score
    bar: Bar | None
    is_unlike: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One number of all arms."""

    name: str
    title: str
    scale: Interval | None  # what the bars' two ends stand for, percent
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownPair:
    """One pair's differences on one scale, and its flips by benchmark."""

    pair: Pair
    scale: Interval | None  # points
    rows: tuple[tuple[Difference, Bar | None], ...]
    flips: Mapping[str, Sequence[Flip]]


def comparison_page(comparison: Comparison) -> str:
    """Returns the HTML document."""
    graded = [name for name in comparison.names if _is_anywhere(comparison, name)]
    others = [name for name in graded if name not in (*SUMMARY, *BENCHMARKS)]
    return render(
        "page.html.j2",
        {
            "comparison": comparison,
            "summary": SUMMARY,
            "benchmarks": BENCHMARKS,
            "measured": [_measured(comparison, name) for name in (MACRO, *CATEGORIES, MICRO)],
            "by_benchmark": [_measured(comparison, name) for name in BENCHMARKS],
            "others": [_measured(comparison, name) for name in others],
            "pairs": [_shown_pair(pair) for pair in comparison.pairs],
            "subscores": [(each, sub) for each in comparison.arms for sub in each.subscores],
            "missing": comparison.missing(),
            "lost": _lost(comparison),
            "protocols": _protocols(comparison),
            "audited": {} if (found := comparison.published) is None
            else {row.label: row for row in found.audit.rows},
            "title_of": title_of,
            "percent_text": percent_text,
            "interval_text": interval_text,
            "points_text": points_text,
            "points_interval_text": points_interval_text,
            "p_text": p_text,
            "verdict_text": verdict_text,
            "macro": MACRO,
            "unpaired": UNPAIRED,
            "max_flips": MAX_FLIPS,
        },
        Path(__file__).parent,
    )  # fmt: skip


def _is_anywhere(comparison: Comparison, name: str) -> bool:
    return any(
        name in each.scores and each.scores[name].value is not None for each in comparison.arms
    )


def _measured(comparison: Comparison, name: str) -> Measured:
    scores = [
        (each.arm.label, score)
        for each in comparison.arms
        if (score := each.scores.get(name)) is not None
    ]
    intervals = [score.interval or _point(score.value) for _, score in scores]
    scale = _scale([each for each in intervals if each is not None], 0.0, 100.0)
    return Measured(
        name=name,
        title=title_of(name),
        scale=scale,
        lines=tuple(
            Line(
                label=label,
                score=score,
                bar=_bar(score.value, score.interval, scale),
                is_unlike=name in comparison.unlike,
            )
            for label, score in scores
        ),
    )


def _shown_pair(pair: Pair) -> ShownPair:
    names = [
        name
        for name in dict.fromkeys((MACRO, *CATEGORIES, MICRO, *BENCHMARKS, *pair.differences))
        if name in pair.differences and (name in (*SUMMARY, *BENCHMARKS) or _is_there(pair, name))
    ]
    rows = [pair.differences[name] for name in names]
    intervals = [each.interval or _point(each.value) for each in rows]
    known = [each for each in intervals if each is not None]
    scale = _scale([*known, Interval(low=0.0, high=0.0)] if known else [], -100.0, 100.0)
    flips: dict[str, list[Flip]] = {}
    for flip in pair.flips:
        flips.setdefault(flip.benchmark, []).append(flip)
    return ShownPair(
        pair=pair,
        scale=scale,
        rows=tuple((each, _bar(each.value, each.interval, scale)) for each in rows),
        flips=flips,
    )


def _is_there(pair: Pair, name: str) -> bool:
    return pair.differences[name].value is not None


def _point(value: float | None) -> Interval | None:
    return None if value is None else Interval(low=value, high=value)


def _scale(intervals: Sequence[Interval], least: float, most: float) -> Interval | None:
    if not intervals:
        return None
    low, high = min(each.low for each in intervals), max(each.high for each in intervals)
    room = max(_ROOM * (high - low), 0.5)
    return Interval(low=max(least, low - room), high=min(most, high + room))


def _bar(value: float | None, interval: Interval | None, scale: Interval | None) -> Bar | None:
    if value is None or scale is None:
        return None
    within = interval or Interval(low=value, high=value)
    return Bar(
        low=_place(within.low, scale),
        middle=_place(value, scale),
        high=_place(within.high, scale),
        zero=_place(0.0, scale) if scale.low < 0 < scale.high else None,
    )


def _place(value: float, scale: Interval) -> float:
    return round(_BAR_WIDTH * (value - scale.low) / (scale.high - scale.low), 1)


def _lost(comparison: Comparison) -> list[tuple[str, Score, int]]:
    """Returns arm, score and number of lost samples, where any was lost."""
    return [
        (each.arm.label, score, number)
        for each in comparison.arms
        for score in each.scores.values()
        if score.graded is not None and (number := num_lost(score.graded.statuses))
    ]


def _protocols(comparison: Comparison) -> list[tuple[str, str, str, dict[str, str]]]:
    """Returns benchmark, arm, fingerprint and fields of everything graded."""
    return [
        (title_of(name), each.arm.label, protocol.fingerprint, asdict(protocol))
        for name in comparison.names
        for each in comparison.arms
        if name in each.arm.benchmarks and (protocol := each.arm.protocol(name))
    ]
