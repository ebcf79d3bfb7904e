from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.reliability.cells import ONE_SCORE, Cell
from mira_megatron.reliability.decisions import (
    COMBINATIONS,
    DECISIONS,
    Decision,
    ReliabilityConfig,
    decide,
)

Interval = tuple[float, float, float]  # low, estimate, high

# Limits: an error of at most 1.0, a rho of at least 0.5.
GOOD_MAE, OPEN_MAE, BAD_MAE = (0.5, 0.7, 1.0), (0.8, 0.9, 1.1), (1.001, 1.5, 2.0)
GOOD_RHO, OPEN_RHO, BAD_RHO = (0.5, 0.7, 0.9), (0.3, 0.6, 0.7), (-0.2, 0.1, 0.499)
OPEN_BAD_MAE, OPEN_BAD_RHO = (0.9, 1.2, 1.4), (0.3, 0.4, 0.6)  # whose estimates fail


def cell(
    mae: Interval | None,
    rho: Interval | None,
    n: int = 100,
    reason: str = "the teacher gave every record the same score",
) -> Cell:
    mae_low, mae_estimate, mae_high = mae or (None, None, None)
    rho_low, rho_estimate, rho_high = rho or (None, None, None)
    return Cell(
        source="s",
        group="g",
        anchor_id="A1",
        anchor_name="name",
        model="m",
        prompt_key="p",
        answer_mode="full",
        n=n,
        mae=mae_estimate,
        mae_low=mae_low,
        mae_high=mae_high,
        rho=rho_estimate,
        rho_low=rho_low,
        rho_high=rho_high,
        rho_of_length=None,
        reason=None if rho else reason,
    )


def decided(mae: Interval | None, rho: Interval | None, n: int = 100, **settings: Any) -> Decision:
    return decide(cell(mae, rho, n), ReliabilityConfig(max_mae=1.0, min_rho=0.5, **settings))


@pytest.mark.parametrize(
    ("mae", "rho", "both", "either"),
    [
        (GOOD_MAE, GOOD_RHO, "keep", "keep"),
        (GOOD_MAE, OPEN_RHO, "undecided", "keep"),
        (GOOD_MAE, BAD_RHO, "masked", "keep"),
        (OPEN_MAE, GOOD_RHO, "undecided", "keep"),
        (OPEN_MAE, OPEN_RHO, "undecided", "undecided"),
        (OPEN_MAE, BAD_RHO, "masked", "undecided"),
        (BAD_MAE, GOOD_RHO, "masked", "keep"),
        (BAD_MAE, OPEN_RHO, "masked", "undecided"),
        (BAD_MAE, BAD_RHO, "masked", "masked"),
        ((1.0, 1.2, 1.4), GOOD_RHO, "undecided", "keep"),  # begins at the limit itself
        (GOOD_MAE, (0.3, 0.4, 0.5), "undecided", "keep"),  # ends at it
        (GOOD_MAE, None, "too_few", "keep"),  # neither interval nor estimate can tell
        (OPEN_MAE, None, "too_few", "undecided"),  # by its estimate it holds
        (OPEN_BAD_MAE, None, "undecided", "too_few"),
        (BAD_MAE, None, "masked", "too_few"),
        (None, None, "too_few", "too_few"),
    ],
)
def test_decide_combines_two_intervals(
    mae: Interval | None, rho: Interval | None, both: str, either: str
) -> None:
    assert decided(mae, rho, combine="both").decision == both
    assert decided(mae, rho, combine="either").decision == either


@pytest.mark.parametrize(
    ("combine", "mae", "rho", "expected"),
    [
        ("mae", GOOD_MAE, BAD_RHO, "keep"),
        ("mae", GOOD_MAE, None, "keep"),
        ("mae", OPEN_MAE, GOOD_RHO, "undecided"),
        ("mae", BAD_MAE, GOOD_RHO, "masked"),
        ("rho", BAD_MAE, GOOD_RHO, "keep"),
        ("rho", GOOD_MAE, OPEN_RHO, "undecided"),
        ("rho", GOOD_MAE, BAD_RHO, "masked"),
        ("rho", GOOD_MAE, None, "too_few"),
    ],
)
def test_decide_by_one_alone_does_not_look_at_the_other(
    combine: str, mae: Interval, rho: Interval | None, expected: str
) -> None:
    assert decided(mae, rho, combine=combine).decision == expected


@pytest.mark.parametrize(("n", "expected"), [(29, "too_few"), (30, "keep")])
def test_decide_needs_min_records(n: int, expected: str) -> None:
    assert decided(GOOD_MAE, GOOD_RHO, n, min_records=30).decision == expected


@pytest.mark.parametrize(
    ("mae", "rho", "settings", "is_masked"),
    [
        (GOOD_MAE, GOOD_RHO, {}, False),
        (BAD_MAE, GOOD_RHO, {}, True),
        (OPEN_MAE, GOOD_RHO, {"undecided": "by_estimate"}, False),
        (OPEN_BAD_MAE, GOOD_RHO, {"undecided": "by_estimate"}, True),
        (GOOD_MAE, OPEN_BAD_RHO, {"undecided": "by_estimate"}, True),
        (OPEN_MAE, GOOD_RHO, {"undecided": "mask"}, True),
        (OPEN_BAD_MAE, GOOD_RHO, {"undecided": "keep"}, False),
        (GOOD_MAE, None, {"too_few": "keep"}, False),
        (GOOD_MAE, None, {"too_few": "mask"}, True),
    ],
)
def test_decide_masks_what_the_settings_say(
    mae: Interval, rho: Interval | None, settings: dict[str, Any], is_masked: bool
) -> None:
    assert decided(mae, rho, **settings).is_masked is is_masked


def test_decide_of_too_few_records_follows_its_own_setting() -> None:
    assert decided(BAD_MAE, BAD_RHO, 3, too_few="keep").is_masked is False
    assert decided(GOOD_MAE, GOOD_RHO, 3, too_few="mask", undecided="keep").is_masked is True


ENDS = st.lists(st.integers(-10, 10).map(lambda tenth: tenth / 10), min_size=3, max_size=3)


@given(mae=ENDS, rho=ENDS, combine=st.sampled_from(COMBINATIONS), n=st.integers(0, 60))
def test_decide_by_estimate_masks_as_thresholds_alone_would(
    mae: list[float], rho: list[float], combine: str, n: int
) -> None:
    mae_low, mae_estimate, mae_high = sorted(abs(end) * 2 for end in mae)
    rho_low, rho_estimate, rho_high = sorted(rho)
    found = decided(
        (mae_low, mae_estimate, mae_high), (rho_low, rho_estimate, rho_high), n, combine=combine
    )
    holds = (mae_estimate <= 1.0, rho_estimate >= 0.5)
    plain = {"mae": holds[0], "rho": holds[1], "both": all(holds), "either": any(holds)}[combine]
    assert found.decision in DECISIONS
    assert found.is_masked is (n >= 30 and not plain)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_mae": 10.5}, r"max_mae=10\.5 must be in \[0, 10\]"),
        ({"min_rho": -1.5}, r"min_rho=-1\.5 must be in \[-1, 1\]"),
        ({"combine": "all"}, "combine='all' must be one of both, either, mae, rho"),
        ({"undecided": "drop"}, "undecided='drop' must be one of keep, mask, by_estimate"),
        ({"too_few": "by_estimate"}, "too_few='by_estimate' must be one of keep, mask"),
        ({"min_records": 2}, "min_records=2 must be at least 3"),
        ({"confidence": 1.0}, r"confidence=1\.0 must be in \(0, 1\)"),
        ({"resamples": 0}, "resamples=0 must be at least 1"),
    ],
)
def test_reliability_config_out_of_range_is_refused_by_name(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ReliabilityConfig(**settings)


@pytest.mark.parametrize("undecided", ["keep", "mask", "by_estimate"])
def test_scorer_of_one_score_fails_on_rho(undecided: str) -> None:
    config = ReliabilityConfig(max_mae=1.0, min_rho=0.5, undecided=undecided)
    collapsed = cell(GOOD_MAE, None, reason=ONE_SCORE)
    assert decide(collapsed, config) == Decision(decision="masked", is_masked=True)
    few = cell(GOOD_MAE, None, n=2, reason=ONE_SCORE)
    assert decide(few, config).decision == "too_few"
