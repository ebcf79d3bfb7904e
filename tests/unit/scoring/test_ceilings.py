from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.scoring.answer_store import Charged
from mira_megatron.scoring.ceilings import Ceilings
from mira_megatron.scoring.judge_config import JudgeConfig

NOTHING = Charged()
CHARGES = st.builds(
    Charged, num_prompt_tokens=st.integers(0, 10_000), num_output_tokens=st.integers(0, 10_000)
)


def ceilings(**settings: float | None) -> Ceilings:
    asked = {"temperature": 0, "top_p": 1, "max_tokens": 10, "endpoints": ["http://h/v1"]}
    return Ceilings.of(JudgeConfig(engine="endpoint", model="m", **{**asked, **settings}))  # type: ignore[arg-type]


def charge(prompt: int, output: int) -> Charged:
    return Charged(num_prompt_tokens=prompt, num_output_tokens=output)


def test_without_ceilings_everything_fits() -> None:
    free = ceilings(price_per_million_prompt_tokens=1)
    assert free.fits(charge(10**15, 10**15), charge(10**15, 10**15)) is None
    assert not free.are_on_charges


@pytest.mark.parametrize(
    ("settings", "broken"),
    [
        ({"prompt_token_ceiling": 100}, "prompt_token_ceiling"),
        ({"output_token_ceiling": 30}, "output_token_ceiling"),
    ],
)
def test_a_token_ceiling_is_reached_and_not_passed(settings: dict[str, float], broken: str) -> None:
    limit = ceilings(**settings)
    assert limit.are_on_charges
    assert limit.fits(charge(90, 20), charge(10, 10)) is None
    assert limit.fits(charge(91, 21), charge(10, 10)) == broken
    assert limit.fits(charge(90, 20), charge(11, 11)) == broken


def test_money_is_counted_in_the_decimals_that_were_written() -> None:
    limit = ceilings(
        price_per_million_prompt_tokens=0.1,
        price_per_million_output_tokens=0.2,
        spend_ceiling=0.3,
    )
    assert limit.cost(charge(1_000_000, 1_000_000)) == Fraction(
        3, 10
    )  # floats: 0.30000000000000004
    assert limit.fits(charge(1_000_000, 0), charge(0, 1_000_000)) is None
    assert limit.fits(charge(1_000_000, 0), charge(0, 1_000_001)) == "spend_ceiling"


def test_a_ceiling_of_nothing_lets_nothing_start() -> None:
    assert ceilings(output_token_ceiling=0).fits(NOTHING, charge(0, 1)) == "output_token_ceiling"


@given(st.lists(CHARGES, max_size=30), st.integers(0, 50_000), st.integers(0, 50_000))
def test_whatever_is_started_in_any_order_stays_under_every_ceiling(
    requests: list[Charged], most_prompt: int, most_output: int
) -> None:
    limit = ceilings(
        prompt_token_ceiling=most_prompt,
        output_token_ceiling=most_output,
        price_per_million_prompt_tokens=0.3,
        price_per_million_output_tokens=0.7,
        spend_ceiling=0.02,
    )
    charged = NOTHING
    for most in requests:
        broken = limit.fits(charged, most)
        together = charged + most
        is_within = (
            together.num_prompt_tokens <= most_prompt
            and together.num_output_tokens <= most_output
            and 3 * together.num_prompt_tokens + 7 * together.num_output_tokens <= 200_000
        )
        assert (broken is None) == is_within
        charged = together if broken is None else charged


@pytest.mark.parametrize(
    ("fraction", "failures", "num_records", "most"),
    [
        (0.01, None, 1000, 10),
        (0.01, None, 99, 0),
        (0.01, 3, 1000, 3),
        (0.01, 3, 100, 1),
        (0.29, None, 100, 29),  # as floats 28.999999999999996
        (1.0, 0, 100, 0),
    ],
)
def test_failures_are_bounded_by_the_tighter_of_share_and_number(
    fraction: float, failures: int | None, num_records: int, most: int
) -> None:
    limit = ceilings(max_failed_fraction=fraction, max_failures=failures)
    assert limit.most_failures(num_records) == most


def test_message_names_the_setting_what_is_spent_and_what_comes_next() -> None:
    limit = ceilings(
        prompt_token_ceiling=1000, price_per_million_output_tokens=2, spend_ceiling=0.5
    )
    spent, most = charge(990, 200_000), charge(20, 100_000)
    assert limit.reached("prompt_token_ceiling", spent, most) == (
        "990 tokens of prompt_token_ceiling=1,000 are spent and the next request can take up to 20"
    )
    assert limit.reached("spend_ceiling", spent, most) == (
        "0.4000 of spend_ceiling=0.5 is spent and the next request can cost up to 0.2000"
    )


@pytest.mark.parametrize("name", ["prompt_token_ceiling", "output_token_ceiling", "max_failures"])
def test_a_ceiling_below_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=-1 must be a number of at least 0"):
        ceilings(**{name: -1})
