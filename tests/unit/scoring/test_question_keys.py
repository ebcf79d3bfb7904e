"""Keys of answers, and seeds of requests."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.scoring.question_keys import QuestionKeys, encoded_messages
from mira_megatron.scoring.record_seed import record_seed

Message = dict[str, str]
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user"]), "content": st.text("ab[],", max_size=3)}
    ),
    min_size=1,
    max_size=4,
)
ASKED = st.lists(st.one_of(st.text("ab", max_size=2), st.integers(0, 3)), max_size=3)


def key(asked: Sequence[object], messages: list[Message]) -> str:
    return QuestionKeys(asked).key(encoded_messages(messages))


@given(ASKED, MESSAGES, ASKED, MESSAGES)
def test_keys_are_equal_where_all_that_is_asked_is(
    asked: list[str | int], messages: list[Message], others: list[str | int], more: list[Message]
) -> None:
    is_equal = (asked, messages) == (others, more)
    assert (key(asked, messages) == key(others, more)) == is_equal
    assert len(bytes.fromhex(key(asked, messages))) == 16


def test_a_key_stays_what_it_was() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    # Answers that were paid for lie under it.
    assert key(["model", 0.7, 1.0], messages) == "58b5fa32c27ccae0c019ee6178384b16"


@given(st.integers(0, 2**40), st.text(max_size=40), st.integers(1, 1000))
def test_seeds_are_what_servers_take_and_attempts_follow_each_other(
    seed: int, record_id: str, attempt: int
) -> None:
    first = record_seed(seed, record_id, 1)
    assert 0 <= first < 2**31
    assert record_seed(seed, record_id, attempt) == (first + attempt - 1) % 2**31


def test_records_have_seeds_of_their_own_and_copies_share_them() -> None:
    names = [f"{number:032x}" for number in range(100)]
    assert len({record_seed(1, name, 1) for name in names}) == 100
    assert record_seed(1, names[0], 1) != record_seed(2, names[0], 1)
    assert record_seed(1, f"{names[0]}-12", 1) == record_seed(1, names[0], 1)
