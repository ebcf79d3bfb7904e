"""The page's figures: what they show as a chart, and the same in words.

A chart is given numbers and words of ours only. What a stranger wrote, a source's name say, is put
beside it by the template, which escapes it; Vega never reads it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import altair as alt
import numpy as np
from markupsafe import Markup

from mira_megatron.report.drawing import drawn
from mira_megatron.report.outcomes import JudgedSource, Outcome
from mira_megatron.report.training_course import LossPoint, TrainingCourse
from mira_megatron.written_numbers import decimal

NUM_BINS = 20  # of half a point each, from 0 to 10
_FLAT = 1e-6  # relative; a curve that varies less is drawn in the middle of its axis
_MARKED_STEPS = 40  # validation points up to here get a marker each
_MAX_POINTS = 1000  # of a curve: more are less than a pixel apart
_LONG_COUNT = 1_000_000  # from here on 1.23M: all its digits would reach into the next figure
_KEPT, _DROPPED = "var(--kept)", "var(--dropped)"
_AXES = alt.AxisConfig(
    domainColor="var(--muted)",
    gridColor="var(--rule)",
    labelColor="var(--muted)",
    labelFontSize=11,
    labelFlush=False,  # a label is centred on its tick, at the ends as well
    labelLimit=0,  # whether a label is cut or left out would depend on the fonts
    labelOverlap=False,
    labelPadding=6,
    ticks=False,
    titleBaseline="alphabetic",
    titleColor="var(--muted)",
    titleFontSize=11,
    titleFontWeight="normal",
    titleLimit=0,
)
_CONFIG = alt.Config(
    axis=_AXES,
    line=alt.LineConfig(aria=False, strokeJoin="round", strokeWidth=2),
    view=alt.ViewConfig(stroke=None),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """The plotting area, and the room around it for labels; 1 is a CSS pixel at full width."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    @property
    def view_box(self) -> str:
        """Returns the whole area, as the viewBox of an SVG."""
        return f"0 0 {self.left + self.width + self.right} {self.top + self.height + self.bottom}"


HISTOGRAM = Size(width=272, height=102, left=40, right=8, top=22, bottom=26)
WIDE = Size(width=666, height=220, left=40, right=14, top=32, bottom=44)
SMALL = Size(width=386, height=154, left=40, right=14, top=32, bottom=44)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A chart as SVG shapes inside `view_box`, and what it shows in words."""

    view_box: str
    shapes: Markup
    description: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """How the scores of one source are spread, kept and dropped records apart."""

    source: str
    figure: Figure


def histogram(judged: JudgedSource) -> Histogram:
    """Returns the score histogram of one source; records without a score are not in it."""
    is_kept_D = judged.outcomes_D == Outcome.KEPT
    edges = np.linspace(0, 10, NUM_BINS + 1)
    kept, _ = np.histogram(judged.scores_D[is_kept_D & judged.is_scored_D], bins=edges)
    dropped, _ = np.histogram(judged.scores_D[~is_kept_D & judged.is_scored_D], bins=edges)
    layers = [_bars(edges.tolist(), kept.tolist(), dropped.tolist())]
    if judged.scope.cutoff is not None:
        layers += _cutoff(judged.scope.cutoff)
    return Histogram(
        source=judged.source,
        figure=_figure(
            layers, HISTOGRAM, _histogram_description(judged, int(kept.sum()), int(dropped.sum()))
        ),
    )


def _bars(edges: Sequence[float], kept: Sequence[int], dropped: Sequence[int]) -> alt.Chart:
    """Returns a bar per bin: kept records below, dropped ones stacked on top."""
    rows = [
        {
            "low": low,
            "high": high,
            "records": number,
            "outcome": outcome,
            "rank": rank,
            "label": f"{low:.1f} to {high:.1f}: {in_kept:,} kept, {in_dropped:,} dropped",
        }
        for (low, high), in_kept, in_dropped in zip(
            itertools.pairwise(edges), kept, dropped, strict=True
        )
        for rank, (outcome, number) in enumerate((("kept", in_kept), ("dropped", in_dropped)))
        if number
    ]
    highest = max(one + other for one, other in zip(kept, dropped, strict=True))
    count_format = ",d" if highest < _LONG_COUNT else ".3~s"
    bars: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(binSpacing=2, strokeWidth=1)
        .encode(
            x=alt.X(
                "low:Q",
                bin="binned",
                scale=alt.Scale(domain=[0, 10]),
                axis=alt.Axis(values=list(range(0, 11, 2)), grid=False, format="d", title=None),
            ),
            x2="high:Q",
            y=alt.Y(
                "records:Q",
                stack="zero",
                scale=alt.Scale(domain=[0, max(highest, 1)], nice=False),
                axis=alt.Axis(
                    values=sorted({0, highest}), domain=False, format=count_format, title=None
                ),
            ),
            order="rank:Q",
            fill=alt.Fill("outcome:N", legend=None, scale=_by_outcome(_KEPT, "url(#hatch)")),
            stroke=alt.Stroke("outcome:N", legend=None, scale=_by_outcome("none", _DROPPED)),
            description="label:N",
        )
    )
    return bars


def _by_outcome(kept: str, dropped: str) -> alt.Scale:
    return alt.Scale(domain=["kept", "dropped"], range=[kept, dropped])


def _cutoff(cutoff: float) -> list[alt.Chart]:
    rows = alt.InlineData(values=[{"score": cutoff, "label": f"cutoff {decimal(cutoff)}"}])
    at_cutoff = alt.Chart(rows).encode(x=alt.X("score:Q"))
    line = at_cutoff.mark_rule(
        aria=False, color="var(--ink)", strokeDash=[2, 3], strokeWidth=1.25, y=-8, y2="height"
    )
    # Near an end the words would stand out of the figure.
    align: Literal["left", "center", "right"] = (
        "left" if cutoff < 1 else "right" if cutoff > 9 else "center"
    )
    words = at_cutoff.mark_text(
        align=align, aria=False, baseline="bottom", color="var(--ink)", fontSize=11, y=-11
    ).encode(text="label:N")
    return [line, words]


def _histogram_description(judged: JudgedSource, num_kept: int, num_dropped: int) -> str:
    is_kept_D = judged.outcomes_D == Outcome.KEPT
    kept = _range_of("kept", num_kept, judged.scores_D[is_kept_D].tolist())
    dropped = _range_of("dropped", num_dropped, judged.scores_D[~is_kept_D & judged.is_scored_D])
    return f"Record scores of {judged.source}, 0 to 10: {kept}; {dropped}."


def _range_of(what: str, number: int, scores: Sequence[float]) -> str:
    if not number:
        return f"no record {what}"
    return f"{number:,} {what} from {min(scores):.2f} to {max(scores):.2f}"


def loss_chart(course: TrainingCourse, size: Size = WIDE) -> Figure:
    """Returns the loss curves of one training."""
    x, y = _steps_axis(course, size), _losses_axis(course, size)
    layers = [
        _curve(course.training).mark_line(color=_KEPT, strokeCap="round").encode(x=x, y=y),
        _curve(course.validation).mark_line(color=_DROPPED, strokeDash=[6, 4]).encode(x=x, y=y),
    ]
    if len(course.validation) <= _MARKED_STEPS:
        layers.append(_markers(course.validation).encode(x=x, y=y))
    return _figure(
        layers,
        size,
        f"Loss over {course.num_steps:,} steps. "
        f"Training: {_course_of(course.training)}. Validation: {_course_of(course.validation)}.",
    )


def _steps_axis(course: TrainingCourse, size: Size) -> alt.X:
    num_ticks = size.width // 90
    last_step = max((point.step for point in (*course.training, *course.validation)), default=0)
    return alt.X(
        "step:Q",
        scale=alt.Scale(domain=[0, max(last_step, 1)], nice=False),
        axis=alt.Axis(
            format=",d",
            grid=False,
            tickCount=num_ticks,
            values=list(range(last_step + 1)) if last_step <= num_ticks else alt.Undefined,
            title="step",
            titleAlign="right",
            titleX=size.width,
            titleY=36,
        ),
    )


def _losses_axis(course: TrainingCourse, size: Size) -> alt.Y:
    losses = [point.loss for point in (*course.training, *course.validation)] or [0.0]
    low, high = min(losses), max(losses)
    scale = max(abs(high), 1.0)
    if high - low <= _FLAT * scale:
        low, high = low - scale / 2, high + scale / 2
    return alt.Y(
        "loss:Q",
        scale=alt.Scale(domain=[low, high], nice=True, zero=False),
        axis=alt.Axis(
            domain=False,
            tickCount=size.height // 36,
            title="nats per token",
            titleAlign="left",
            titleAngle=0,
            titleX=-size.left,
            titleY=-14,
        ),
    )


def _curve(points: Sequence[LossPoint]) -> alt.Chart:
    rows = [{"step": point.step, "loss": point.loss} for point in thinned(points)]
    return alt.Chart(alt.InlineData(values=rows))


def _markers(points: Sequence[LossPoint]) -> alt.Chart:
    rows = [
        {
            "step": point.step,
            "loss": point.loss,
            "label": f"step {point.step:,}: {decimal(point.loss, 4)}",
        }
        for point in points
    ]
    markers: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(fill="var(--paper)", opacity=1, size=38, stroke=_DROPPED, strokeWidth=2)
        .encode(description="label:N")
    )
    return markers


def thinned(points: Sequence[LossPoint], most: int = _MAX_POINTS) -> list[LossPoint]:
    """Returns at most so many of the points: of every stretch the lowest and the highest."""
    if len(points) <= most:
        return list(points)
    bounds = np.linspace(0, len(points), most // 2 + 1).astype(int).tolist()
    chosen: list[LossPoint] = []
    for first, end in itertools.pairwise(bounds):
        stretch = points[first:end]
        ends = (min(stretch, key=_loss), max(stretch, key=_loss))
        chosen += sorted(set(ends), key=lambda point: point.step)
    return chosen


def _loss(point: LossPoint) -> float:
    return point.loss


def _course_of(points: Sequence[LossPoint]) -> str:
    if not points:
        return "not measured"
    first, last = points[0], points[-1]
    return f"{first.loss:.2f} at step {first.step:,}, {last.loss:.2f} at step {last.step:,}"


def _figure(layers: Sequence[alt.Chart], size: Size, description: str) -> Figure:
    shapes = drawn(
        layers,
        width=size.width,
        height=size.height,
        padding={side: getattr(size, side) for side in ("left", "right", "top", "bottom")},
        config=_CONFIG,
    )
    return Figure(view_box=size.view_box, shapes=shapes, description=description)
