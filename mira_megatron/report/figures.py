"""The geometry of the page's figures: numbers in, SVG coordinates and a description out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mira_megatron.report.outcomes import JudgedSource, Outcome
from mira_megatron.report.training_course import LossPoint, TrainingCourse
from mira_megatron.written_numbers import decimal, grouped

NUM_BINS = 20  # of half a point each, from 0 to 10
_FLAT = 1e-6  # relative; a curve that varies less gets an axis as high as its values
_MARKED_STEPS = 40  # validation points up to here get a marker each


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """The plotting area inside an SVG of `width` x `height`; y grows downwards."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float


HISTOGRAM_FRAME = Frame(width=320, height=150, left=40, right=312, top=22, bottom=124)
LOSS_FRAME = Frame(width=720, height=296, left=40, right=706, top=32, bottom=252)
SMALL_FRAME = Frame(width=440, height=230, left=40, right=426, top=32, bottom=186)  # also for loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A labelled position on an axis."""

    position: float
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bin: kept records below, dropped ones stacked on top."""

    x: float
    width: float
    kept_y: float
    kept_height: float
    dropped_y: float
    dropped_height: float
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """How the scores of one source are spread, kept and dropped records apart."""

    source: str
    bars: tuple[Bar, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    cutoff: Tick | None
    description: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LossChart:
    """Training and validation loss over steps."""

    frame: Frame
    training: str  # points of a polyline, as SVG writes them
    validation: str
    markers: tuple[tuple[float, float], ...]  # of single validation points
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    description: str


def histogram(judged: JudgedSource) -> Histogram:
    """Returns the score histogram of one source; records without a score are not in it."""
    is_kept_D = judged.outcomes_D == Outcome.KEPT
    edges = np.linspace(0, 10, NUM_BINS + 1)
    kept, _ = np.histogram(judged.scores_D[is_kept_D & judged.is_scored_D], bins=edges)
    dropped, _ = np.histogram(judged.scores_D[~is_kept_D & judged.is_scored_D], bins=edges)
    highest = int((kept + dropped).max())
    frame = HISTOGRAM_FRAME
    bars = [
        _bar(frame, edges[index], edges[index + 1], int(kept[index]), int(dropped[index]), highest)
        for index in range(NUM_BINS)
        if kept[index] + dropped[index]
    ]
    cutoff = judged.scope.cutoff
    return Histogram(
        source=judged.source,
        bars=tuple(bars),
        x_ticks=tuple(
            Tick(position=_x(frame, score, 0, 10), label=str(score)) for score in range(0, 11, 2)
        ),
        y_ticks=_count_ticks(frame, highest),
        cutoff=None
        if cutoff is None
        else Tick(position=_x(frame, cutoff, 0, 10), label=decimal(cutoff)),
        description=_histogram_description(judged, int(kept.sum()), int(dropped.sum())),
    )


def _bar(frame: Frame, low: float, high: float, kept: int, dropped: int, highest: int) -> Bar:
    left, right = _x(frame, low, 0, 10), _x(frame, high, 0, 10)
    kept_y = _y(frame, kept, 0, highest)
    dropped_y = _y(frame, kept + dropped, 0, highest)
    return Bar(
        x=round(left + 1, 2),
        width=round(right - left - 2, 2),
        kept_y=kept_y,
        kept_height=round(frame.bottom - kept_y, 2),
        dropped_y=dropped_y,
        dropped_height=round(kept_y - dropped_y, 2),
        label=f"{low:.1f} to {high:.1f}: {kept:,} kept, {dropped:,} dropped",
    )


def _count_ticks(frame: Frame, highest: int) -> tuple[Tick, ...]:
    if not highest:
        return ()
    return tuple(
        Tick(position=_y(frame, count, 0, highest), label=grouped(count)) for count in (0, highest)
    )


def _histogram_description(judged: JudgedSource, num_kept: int, num_dropped: int) -> str:
    is_kept_D = judged.outcomes_D == Outcome.KEPT
    kept = _range_of("kept", num_kept, judged.scores_D[is_kept_D].tolist())
    dropped = _range_of("dropped", num_dropped, judged.scores_D[~is_kept_D & judged.is_scored_D])
    return f"Record scores of {judged.source}, 0 to 10: {kept}; {dropped}."


def _range_of(what: str, number: int, scores: Sequence[float]) -> str:
    if not number:
        return f"no record {what}"
    return f"{number:,} {what} from {min(scores):.2f} to {max(scores):.2f}"


def loss_chart(course: TrainingCourse, frame: Frame = LOSS_FRAME) -> LossChart:
    """Returns the loss curves of one training."""
    points = [*course.training, *course.validation]
    last_step = max((point.step for point in points), default=0)
    losses = [point.loss for point in points] or [0.0]
    y_values = ticks(min(losses), max(losses))
    digits = max(0, math.ceil(-math.log10(y_values[1] - y_values[0]) - 1e-9))
    low, high = y_values[0], y_values[-1]
    place = [
        (_x(frame, point.step, 0, max(last_step, 1)), _y(frame, point.loss, low, high))
        for point in points
    ]
    training, validation = place[: len(course.training)], place[len(course.training) :]
    return LossChart(
        frame=frame,
        training=_polyline(training),
        validation=_polyline(validation),
        markers=tuple(validation) if len(validation) <= _MARKED_STEPS else (),
        x_ticks=tuple(
            Tick(position=_x(frame, step, 0, max(last_step, 1)), label=grouped(round(step)))
            for step in ticks(0, max(last_step, 1))
            if step <= max(last_step, 1) and step == round(step)
        ),
        y_ticks=tuple(
            Tick(position=_y(frame, value, low, high), label=f"{value:.{digits}f}")
            for value in y_values
        ),
        description=f"Loss over {course.num_steps:,} steps. "
        f"Training: {_course_of(course.training)}. Validation: {_course_of(course.validation)}.",
    )


def _course_of(points: Sequence[LossPoint]) -> str:
    if not points:
        return "not measured"
    first, last = points[0], points[-1]
    return f"{first.loss:.2f} at step {first.step:,}, {last.loss:.2f} at step {last.step:,}"


def ticks(low: float, high: float) -> list[float]:
    """Returns four to ten round, evenly spaced values, the outer ones at or beyond low and high."""
    scale = max(abs(high), 1.0)
    span = high - low if high - low > _FLAT * scale else scale
    rough = span / 5
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    first, last = math.floor(low / step), math.ceil(max(high, low + span) / step)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _x(frame: Frame, value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low)
    return round(float(frame.left + share * (frame.right - frame.left)), 2)


def _y(frame: Frame, value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.0
    return round(float(frame.bottom - share * (frame.bottom - frame.top)), 2)
