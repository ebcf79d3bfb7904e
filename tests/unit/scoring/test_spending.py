from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.scoring.answer_store import AnswerStore, Charged, StoredAnswer
from mira_megatron.scoring.ceilings import Ceilings
from mira_megatron.scoring.spending import Spending


def _spending(store: AnswerStore, ceiling: float | None) -> Spending:
    return Spending(store=store, model="m", ceilings=_one_per_output_token(ceiling))


def _one_per_output_token(ceiling: float | None) -> Ceilings:
    return Ceilings(
        spend=None if ceiling is None else Fraction(ceiling),
        prompt_tokens=None,
        output_tokens=None,
        failures=None,
        failed_fraction=Fraction(0),
        price_per_million_prompt=Fraction(0),
        price_per_million_output=Fraction(10**6),
    )


def _tokens(count: int) -> Charged:
    return Charged(num_output_tokens=count)


def _stored(charged: Charged) -> StoredAnswer:
    return StoredAnswer(
        key="0" * 32,
        model="m",
        charged=charged,
        text="fine",
        reasoning=None,
        finish_reason=None,
        num_prompt_tokens=None,
        num_output_tokens=None,
        failure=None,
        failure_detail=None,
    )


def test_spending_reserves_the_most_and_counts_what_it_cost(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        spending = _spending(store, 4)
        assert spending.reserve("a", _tokens(3))
        assert not spending.reserve("b", _tokens(2))
        spending.settle("a", _stored(_tokens(1)))
        assert spending.committed.num_output_tokens == 1
        assert spending.reserve("b", _tokens(3))  # exactly up to the ceiling


def test_spending_lost_attempt_counts_at_its_most_in_the_next_run_too(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        spending = _spending(store, 3)
        assert spending.reserve("a", _tokens(2))
        assert not spending.lose("a")  # a second attempt could lead to 4
        spending.settle("a", None)
        assert spending.committed.num_output_tokens == 2
    assert _spending(AnswerStore(tmp_path), 3).committed.num_output_tokens == 2


def test_spending_lost_attempts_are_written_once_however_many_journals_follow(
    tmp_path: Path,
) -> None:
    num_lost, num_bytes = 200, []
    with AnswerStore(tmp_path, answers_per_journal=2) as store:
        spending = _spending(store, 10_000)
        assert spending.reserve("in flight", _tokens(7))
        for number in range(num_lost):
            key = f"lost {number}"
            assert spending.reserve(key, _tokens(3))
            assert spending.lose(key)
            spending.settle(key, None)
        for number in range(20):
            key = f"{number:032x}"
            assert spending.reserve(key, _tokens(5))
            spending.settle(key, dataclasses.replace(_stored(_tokens(1)), key=key))
            num_bytes.append(sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")))
        assert spending.committed == _tokens(7 + 3 * num_lost + 20)
    # The last journal has what is in flight and its answers, and none of what was lost.
    assert num_bytes[-1] < 5_000 < num_bytes[0]
    again = _spending(AnswerStore(tmp_path), 10_000)
    assert again.committed == _tokens(7 + 3 * num_lost + 20)


def test_spending_request_that_cost_nothing_makes_room_again(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        spending = _spending(store, 3)
        assert spending.reserve("a", _tokens(3))
        spending.settle("a", None)
        assert spending.committed.num_output_tokens == 0
    assert _spending(AnswerStore(tmp_path), 3).committed.num_output_tokens == 0


def test_spending_without_a_ceiling_lets_everything_through(tmp_path: Path) -> None:
    with AnswerStore(tmp_path) as store:
        assert _spending(store, None).reserve("a", _tokens(10**12))


def test_spending_without_a_ceiling_writes_answers_alone_and_counts_what_is_lost(
    tmp_path: Path,
) -> None:
    with AnswerStore(tmp_path) as store:
        spending = _spending(store, None)
        for key in ("answered", "lost", "free"):
            assert spending.reserve(key, _tokens(5))
        assert spending.committed.num_output_tokens == 15
        spending.settle("answered", _stored(_tokens(2)))
        spending.settle("free", None)
        assert spending.lose("lost")
        assert spending.committed.num_output_tokens == 2 + 5 + 5
        spending.settle("lost", None)
        assert spending.committed.num_output_tokens == 2 + 5
        (journal,) = tmp_path.glob("*.jsonl")
        assert journal.read_bytes().count(b"\n") == 1
    assert _spending(AnswerStore(tmp_path), None).committed.num_output_tokens == 2


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(0, 40), st.integers(1, 12))
def test_spending_never_exceeds_the_ceiling_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, ceiling: int, num_steps: int
) -> None:
    folder = tmp_path_factory.mktemp("answers")
    with AnswerStore(folder) as store:
        spending = _spending(store, ceiling)
        most: dict[str, int] = {}
        for number in range(num_steps):
            count = data.draw(st.integers(0, 20))
            if spending.reserve(str(number), _tokens(count)):
                most[str(number)] = count
            fate = data.draw(st.sampled_from(["wait", "lose", "answer"]))
            if most and fate != "wait":
                key = data.draw(st.sampled_from(sorted(most)))
                count = data.draw(st.integers(0, most.pop(key)))
                if fate == "lose":
                    spending.lose(key)
                spending.settle(key, None if fate == "lose" else _stored(_tokens(count)))
            assert spending.committed.num_output_tokens <= ceiling
        committed = spending.committed
    assert _spending(AnswerStore(folder), ceiling).committed == committed
