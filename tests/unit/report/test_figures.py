from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.report.figures import (
    HISTOGRAM,
    SMALL,
    WIDE,
    Figure,
    Size,
    histogram,
    loss_chart,
    thinned,
)
from mira_megatron.report.judged_scopes import Scope
from mira_megatron.report.outcomes import JudgedSource, Outcome
from mira_megatron.report.training_course import LossPoint, TrainingCourse, training_course

COURSE = TrainingCourse(
    num_steps=10,
    num_train_tokens=640,
    training=(LossPoint(step=5, loss=7.0), LossPoint(step=10, loss=5.0)),
    validation=(LossPoint(step=10, loss=6.0),),
)
ANOTHER_PROCESS = """
from mira_megatron.report.figures import loss_chart
from mira_megatron.report.training_course import LossPoint, TrainingCourse
print(loss_chart(%r).shapes)
"""


def judged(
    scores: list[float | None], kept: list[bool], cutoff: float | None = 6.25, source: str = "wiki"
) -> JudgedSource:
    scope = Scope(
        name="all sources",
        budget_tokens=0,
        num_candidates=0,
        candidate_tokens=0,
        num_kept=0,
        tokens_kept=0,
        cutoff=cutoff if any(kept) else None,
        first_out=None,
        sources=("wiki",),
    )
    return JudgedSource(
        source=source,
        source_group="text",
        scope=scope,
        record_ids=pa.chunked_array([[""] * len(scores)]),
        tokens_D=np.ones(len(scores), dtype=np.int64),
        scores_D=np.array([score or 0.0 for score in scores], dtype=np.float32),
        is_scored_D=np.array([score is not None for score in scores]),
        no_score_reasons=pa.chunked_array([[None] * len(scores)], pa.string()),
        outcomes_D=np.where(kept, Outcome.KEPT, Outcome.NOT_SELECTED).astype(np.uint8),
        tokens_seen=0,
    )


def course_of(*losses: float, num_validations: int = 0) -> TrainingCourse:
    points = tuple(LossPoint(step=step, loss=loss) for step, loss in enumerate(losses, start=1))
    return TrainingCourse(
        num_steps=len(losses),
        num_train_tokens=64,
        training=points,
        validation=points[:num_validations],
    )


def elements(figure: Figure) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(f"<svg>{figure.shapes}</svg>").iter())


def words(figure: Figure) -> list[str]:
    return [element.text or "" for element in elements(figure) if element.tag == "text"]


def bars(figure: Figure) -> list[tuple[str, str, list[float]]]:
    """Returns label, fill and left, top, width, height of every bar."""
    return [
        (
            element.findtext("title", ""),
            element.attrib["fill"],
            [float(number) for number in re.findall(r"[\d.]+", element.attrib["d"])[:4]],
        )
        for element in elements(figure)
        if element.find("title") is not None
    ]


def strokes(figure: Figure) -> dict[str, str]:
    """Returns the path of every curve, by its colour."""
    return {
        element.attrib["stroke"]: element.attrib["d"]
        for element in elements(figure)
        if element.tag == "path" and "fill" not in element.attrib
    }


def test_histogram_stacks_dropped_on_kept_and_leaves_out_the_unscored() -> None:
    scores = [6.5, 6.25, 6.0, None, 10.0, None]
    figure = histogram(judged(scores, [True, True, False, False, True, True])).figure
    kept, dropped, next_bin, last_bin = bars(figure)
    assert kept[:2] == ("6.0 to 6.5: 1 kept, 1 dropped", "var(--kept)")
    assert dropped[:2] == ("6.0 to 6.5: 1 kept, 1 dropped", "url(#hatch)")
    assert [each[0] for each in (next_bin, last_bin)] == [
        "6.5 to 7.0: 1 kept, 0 dropped",
        "9.5 to 10.0: 1 kept, 0 dropped",
    ]
    half = HISTOGRAM.height / 2  # one of the two in the fullest bin
    assert [each[2][1::2] for each in (kept, dropped)] == [[half, half], [0, half]]
    left, _, width, _ = kept[2]
    per_point = HISTOGRAM.width / 10
    assert 6 * per_point < left < left + width < 6.5 * per_point + 0.5


def test_histogram_has_a_scale_of_scores_and_one_of_records() -> None:
    assert words(histogram(judged([6.0, 6.0], [False, False])).figure) == [
        *("0", "2", "4", "6", "8", "10"),
        *("0", "2"),
    ]


def test_histogram_of_millions_has_a_short_label() -> None:
    number = 1_234_567
    many = replace(
        judged([6.0], [False]),
        scores_D=np.full(number, 6.0, dtype=np.float32),
        is_scored_D=np.ones(number, dtype=np.bool_),
        outcomes_D=np.full(number, Outcome.NOT_SELECTED, dtype=np.uint8),
    )
    figure = histogram(many).figure
    assert words(figure)[-1] == "1.23M"
    assert bars(figure)[0][0] == "6.0 to 6.5: 0 kept, 1,234,567 dropped"


@pytest.mark.parametrize(
    ("cutoff", "place", "anchor"),
    [(6.25, "170", "middle"), (0.5, "13.6", "start"), (10.0, "272", "end")],
)
def test_histogram_marks_the_cutoff_and_keeps_its_words_inside(
    cutoff: float, place: str, anchor: str
) -> None:
    found = elements(histogram(judged([10.0], [True], cutoff)).figure)
    (label,) = (element for element in found if element.text == f"cutoff {cutoff:.2f}")
    assert label.attrib["text-anchor"] == anchor
    assert label.attrib["transform"].startswith(f"translate({place},")
    (line,) = (element for element in found if element.get("stroke") == "var(--ink)")
    assert line.attrib["transform"] == f"translate({place},-8)"


def test_histogram_describes_itself() -> None:
    assert histogram(judged([9.0, 6.25, 6.0], [True, True, False])).figure.description == (
        "Record scores of wiki, 0 to 10: 2 kept from 6.25 to 9.00; 1 dropped from 6.00 to 6.00."
    )


def test_histogram_without_scores_is_empty() -> None:
    figure = histogram(judged([None], [False])).figure
    assert bars(figure) == []
    assert words(figure) == ["0", "2", "4", "6", "8", "10", "0"]
    assert "no record kept; no record dropped" in figure.description


def test_histogram_takes_nothing_from_a_sources_name_into_its_markup() -> None:
    hostile = histogram(judged([7.0], [True], source="</svg><script>alert(1)</script>"))
    assert hostile.figure.shapes == histogram(judged([7.0], [True])).figure.shapes
    assert "<script>" in hostile.figure.description  # escaped by the template
    assert not hasattr(hostile.figure.description, "__html__")


@pytest.mark.parametrize("size", [WIDE, SMALL])
def test_loss_chart_falls_with_the_loss_and_shows_both_curves(size: Size) -> None:
    figure = loss_chart(COURSE, size)
    middle, right, bottom = size.width / 2, size.width, size.height
    assert strokes(figure) == {
        "var(--kept)": f"M{middle:g},0L{right},{bottom}",
        "var(--dropped)": f"M{right},{bottom / 2:g}Z",
    }
    assert [label for label, _, _ in bars(figure)] == ["step 10: 6.0000"]
    assert {"5.0", "7.0", "0", "10", "step", "nats per token"} <= set(words(figure))
    assert figure.view_box == f"0 0 {right + 54} {bottom + 76}"


def test_loss_chart_describes_both_curves() -> None:
    assert loss_chart(COURSE).description == (
        "Loss over 10 steps. Training: 7.00 at step 5, 5.00 at step 10. "
        "Validation: 6.00 at step 10, 6.00 at step 10."
    )
    assert loss_chart(course_of(5.0)).description.endswith("Validation: not measured.")


def test_loss_chart_of_one_value_has_axes_and_a_dot() -> None:
    figure = loss_chart(course_of(5.0))
    assert words(figure) == ["0", "1", "step", "3", "4", "5", "6", "7", "nats per token"]
    (dot,) = (element for element in elements(figure) if element.get("stroke") == "var(--kept)")
    assert dot.attrib["stroke-linecap"] == "round"  # or a path of one point is not seen


def test_loss_chart_names_no_step_twice() -> None:
    for num_steps in (1, 2, 3, 5, 8, 20):
        labels = words(loss_chart(course_of(*[5.0] * num_steps), SMALL))
        steps = labels[: labels.index("step")]
        assert len(steps) == len(set(steps)) >= 2, num_steps


def test_loss_chart_leaves_out_no_label_by_its_width() -> None:
    # Wider together than the axis: what is left out then would depend on the machine's fonts.
    far = replace(COURSE, training=(LossPoint(step=4 * 10**15, loss=7.0),))
    assert len([word for word in words(loss_chart(far, SMALL)) if word.endswith(",000")]) == 4


def test_loss_chart_of_nothing_yet_is_drawn() -> None:
    figure = loss_chart(course_of())
    assert strokes(figure) == {}
    assert "Training: not measured." in figure.description


def test_loss_chart_of_a_long_training_is_small_and_unmarked() -> None:
    losses = np.random.default_rng(0).normal(5, 1, 20_000).tolist()
    figure = loss_chart(course_of(*losses, num_validations=41))
    assert bars(figure) == []
    assert len(figure.shapes) < 25_000  # characters


def test_training_course_takes_the_two_kinds_of_entries_apart() -> None:
    log = [
        {"step": 0, "eval_loss": 7.5, "eval_tokens": 64},
        {"step": 5, "loss": 7.25, "learning_rate": 0.003, "grad_norm": 1.0},
    ]
    state = {"global_step": 5, "max_steps": 5, "num_train_tokens": 640, "log_history": log}
    course = training_course(state)
    assert course.first_loss == course.last_loss == pytest.approx(7.25)
    assert course.last_validation_loss == 7.5


@given(st.lists(st.floats(0, 10), max_size=60), st.integers(1, 10))
def test_thinned_points_are_few_in_order_and_have_the_extremes(
    losses: list[float], half: int
) -> None:
    points = course_of(*losses).training
    found = thinned(points, most=2 * half)
    assert len(found) <= 2 * half
    assert [point.step for point in found] == sorted({point.step for point in found})
    assert set(found) <= set(points)
    if losses:
        own = [point.loss for point in found]
        assert (min(own), max(own)) == (min(losses), max(losses))
    if len(losses) <= 2 * half:
        assert found == list(points)


def test_figures_are_the_same_bytes_whatever_was_drawn_before() -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", ANOTHER_PROCESS % (COURSE,)],
        capture_output=True,
        check=True,
        text=True,
    )
    histogram(judged([7.0], [True]))
    assert outcome.stdout.strip() == loss_chart(COURSE).shapes


def test_figures_follow_the_colours_of_the_page_and_have_no_ids() -> None:
    drawings = (
        histogram(judged([6.5, 6.0], [True, False])).figure,
        loss_chart(COURSE),
    )
    attributes = [
        (name, value)
        for figure in drawings
        for element in elements(figure)
        for name, value in element.items()
    ]
    paints = {value for name, value in attributes if name in ("fill", "stroke")}
    assert paints == {
        *("none", "url(#hatch)"),
        *(f"var(--{name})" for name in ("dropped", "ink", "kept", "muted", "paper", "rule")),
    }
    assert {name for name, _ in attributes} == {
        *("d", "fill", "stroke", "stroke-dasharray", "stroke-linecap", "stroke-linejoin"),
        *("font-size", "stroke-width", "text-anchor", "transform", "x2", "y2"),
    }
