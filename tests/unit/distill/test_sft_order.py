from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.distill.sft_order import is_validation, order_key

_HASHES = st.text("0123456789abcdef", min_size=32, max_size=32)


@given(_HASHES, st.integers(), st.floats(0, 1), st.floats(0, 1))
def test_is_validation_a_larger_fraction_keeps_what_a_smaller_one_took(
    content_hash: str, seed: int, one: float, other: float
) -> None:
    small, large = sorted((one, other))
    assert is_validation(content_hash, seed, small) <= is_validation(content_hash, seed, large)


@given(_HASHES, st.integers())
def test_is_validation_takes_all_or_nothing_at_the_ends(content_hash: str, seed: int) -> None:
    assert is_validation(content_hash, seed, 1.0)
    assert not is_validation(content_hash, seed, 0.0)


@given(st.sets(_HASHES, min_size=2, max_size=30), st.integers())
def test_order_key_of_a_record_does_not_depend_on_the_others(ids: set[str], seed: int) -> None:
    everything = sorted(ids, key=lambda each: (order_key(each, seed), each))
    some = sorted(ids)[::2]
    ordered = sorted(some, key=lambda each: (order_key(each, seed), each))
    assert ordered == [each for each in everything if each in some]
    assert all(0 <= order_key(each, seed) < 1 << 64 for each in ids)


def test_is_validation_takes_about_the_fraction_asked_for() -> None:
    sides = Counter(is_validation(f"{number:032x}", 3, 0.2) for number in range(10_000))
    assert 1_840 <= sides[True] <= 2_160  # four standard deviations


def test_order_key_another_seed_gives_another_order() -> None:
    ids = [f"{number:032x}" for number in range(50)]
    one, other = (sorted(ids, key=lambda each: order_key(each, seed)) for seed in (1, 2))
    assert one != other != ids
