from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.report.figures import HISTOGRAM_FRAME, histogram, loss_chart, ticks
from mira_megatron.report.judged_scopes import Scope
from mira_megatron.report.outcomes import JudgedSource, Outcome
from mira_megatron.report.training_course import LossPoint, TrainingCourse, training_course


def judged(scores: list[float | None], kept: list[bool]) -> JudgedSource:
    scope = Scope(
        name="all sources",
        budget_tokens=0,
        num_candidates=0,
        candidate_tokens=0,
        num_kept=0,
        tokens_kept=0,
        cutoff=6.25 if any(kept) else None,
        first_out=None,
        sources=("wiki",),
    )
    return JudgedSource(
        source="wiki",
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


def test_histogram_stacks_dropped_on_kept_and_leaves_out_the_unscored() -> None:
    chart = histogram(judged([6.5, 6.25, 6.0, None, 10.0], [True, True, False, False, True]))
    assert [bar.label for bar in chart.bars] == [
        "6.0 to 6.5: 1 kept, 1 dropped",
        "6.5 to 7.0: 1 kept, 0 dropped",
        "9.5 to 10.0: 1 kept, 0 dropped",
    ]
    both, kept_only, _ = chart.bars
    assert both.kept_height == both.dropped_height == kept_only.kept_height
    assert both.dropped_y + both.dropped_height == both.kept_y
    assert both.kept_y + both.kept_height == HISTOGRAM_FRAME.bottom
    assert [tick.label for tick in chart.y_ticks] == ["0", "2"]


def test_histogram_marks_the_cutoff_and_describes_itself() -> None:
    chart = histogram(judged([9.0, 6.25, 6.0], [True, True, False]))
    assert chart.cutoff is not None
    assert chart.cutoff.label == "6.25"
    assert chart.description == (
        "Record scores of wiki, 0 to 10: 2 kept from 6.25 to 9.00; 1 dropped from 6.00 to 6.00."
    )


def test_histogram_without_scores_is_empty() -> None:
    chart = histogram(judged([None], [False]))
    assert (chart.bars, chart.y_ticks, chart.cutoff) == ((), (), None)
    assert "no record kept; no record dropped" in chart.description


def test_ticks_are_round_numbers_around_the_values() -> None:
    assert ticks(5.1, 7.4) == [5.0, 5.5, 6.0, 6.5, 7.0, 7.5]
    assert ticks(0, 20) == [0, 5, 10, 15, 20]


@given(st.floats(0, 1e4), st.floats(0, 1e4))
def test_ticks_enclose_the_values_and_are_few(one: float, other: float) -> None:
    low, high = sorted((one, other))
    values = ticks(low, high)
    tolerance = 1e-9 * max(high, 1.0)  # ticks are rounded to ten decimals
    assert values[0] <= low + tolerance
    assert values[-1] >= high - tolerance
    assert 2 <= len(values) <= 12


def test_loss_chart_falls_with_the_loss_and_says_both_curves() -> None:
    course = TrainingCourse(
        num_steps=10,
        num_train_tokens=640,
        training=(LossPoint(step=5, loss=7.0), LossPoint(step=10, loss=5.0)),
        validation=(LossPoint(step=10, loss=6.0),),
    )
    chart = loss_chart(course)
    assert chart.training == "373,32 706,252"  # from the middle, top, to the right, bottom
    assert chart.markers == ((706.0, 142.0),)
    assert chart.description == (
        "Loss over 10 steps. Training: 7.00 at step 5, 5.00 at step 10. "
        "Validation: 6.00 at step 10, 6.00 at step 10."
    )


def test_loss_chart_of_one_value_has_an_axis() -> None:
    one = TrainingCourse(
        num_steps=1,
        num_train_tokens=64,
        training=(LossPoint(step=1, loss=5.0),),
        validation=(),
    )
    chart = loss_chart(one)
    assert len(chart.y_ticks) >= 2
    assert chart.validation == ""
    assert chart.description.endswith("Validation: not measured.")


def test_training_course_takes_the_two_kinds_of_entries_apart() -> None:
    log = [
        {"step": 0, "eval_loss": 7.5, "eval_tokens": 64},
        {"step": 5, "loss": 7.25, "learning_rate": 0.003, "grad_norm": 1.0},
    ]
    state = {"global_step": 5, "max_steps": 5, "num_train_tokens": 640, "log_history": log}
    course = training_course(state)
    assert course.first_loss == course.last_loss == pytest.approx(7.25)
    assert course.last_validation_loss == 7.5


def test_histogram_leaves_out_kept_records_without_a_score() -> None:
    chart = histogram(judged([7.0, None], [True, True]))
    assert len(chart.bars) == 1
