from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.scoring.answer_store import Charged
from mira_megatron.scoring.spending import Prices, Spending

_COSTS = st.fractions(min_value=0, max_value=5, max_denominator=100)


def test_prices_cost_is_exact() -> None:
    prices = Prices.per_million(prompt=0.1, output=0.7)
    assert prices.cost(Charged(num_prompt_tokens=3, num_output_tokens=1)) == Fraction(1, 10**6)


def test_spending_reserves_the_most_and_counts_what_it_cost() -> None:
    spending = Spending(spent=Fraction(1), ceiling=4.0)
    assert spending.reserve("a", Fraction(2))
    assert not spending.reserve("b", Fraction(2))
    spending.settle("a", Fraction(1, 2))
    assert spending.spent == Fraction(3, 2)
    assert spending.reserve("b", Fraction(5, 2))  # exactly up to the ceiling


def test_spending_lost_attempt_counts_at_its_most() -> None:
    spending = Spending(spent=Fraction(0), ceiling=3.0)
    assert spending.reserve("a", Fraction(2))
    assert not spending.lose("a")  # a second attempt could lead to 4
    spending.settle("a", Fraction(0))
    assert spending.committed == 2


def test_spending_without_a_ceiling_lets_everything_through() -> None:
    spending = Spending(spent=Fraction(10**9), ceiling=None)
    assert spending.reserve("a", Fraction(10**9))


@given(st.data(), st.integers(0, 40), st.integers(1, 12))
def test_spending_never_exceeds_the_ceiling_whatever_the_order(
    data: st.DataObject, ceiling: int, num_steps: int
) -> None:
    spending = Spending(spent=Fraction(0), ceiling=float(ceiling))
    most: dict[str, Fraction] = {}
    for number in range(num_steps):
        cost = data.draw(_COSTS)
        if spending.reserve(str(number), cost):
            most[str(number)] = cost
        fate = data.draw(st.sampled_from(["wait", "lose", "answer"]))
        if most and fate != "wait":
            key = data.draw(st.sampled_from(sorted(most)))
            if fate == "lose":
                spending.lose(key)
            cost = most.pop(key) * data.draw(st.fractions(0, 1))
            spending.settle(key, Fraction(0) if fate == "lose" else cost)
        assert spending.spent <= spending.committed <= ceiling
