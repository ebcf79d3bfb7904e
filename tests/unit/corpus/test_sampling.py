from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.corpus.sampling import sample_ids

IDS = st.lists(st.text(min_size=1, max_size=4), unique=True)


def test_sample_of_fewer_records_than_asked_for_is_all_of_them() -> None:
    assert sample_ids(["a", "b"], 3, seed=1, purpose="group") == {"a", "b"}
    assert sample_ids(["a", "b"], 0, seed=1, purpose="group") == set()


def test_sample_changes_with_seed_and_purpose() -> None:
    record_ids = [f"{number:032x}" for number in range(1000)]
    first = sample_ids(record_ids, 100, seed=1, purpose="group")
    assert len(first) == 100
    # Two independent tenths of a thousand share about ten; half of them would be no coincidence.
    assert len(first & sample_ids(record_ids, 100, seed=2, purpose="group")) < 50
    assert len(first & sample_ids(record_ids, 100, seed=1, purpose="label")) < 50


def test_negative_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="n=-1"):
        sample_ids(["a"], -1, seed=1, purpose="group")


@given(IDS, st.integers(0, 8), st.integers())
def test_sample_does_not_depend_on_order(record_ids: list[str], n: int, seed: int) -> None:
    sample = sample_ids(record_ids, n, seed=seed, purpose="p")
    assert sample == sample_ids(record_ids[::-1], n, seed=seed, purpose="p")
    assert len(sample) == min(n, len(record_ids))


@given(IDS, st.integers(0, 8), st.integers(0, 20))
def test_sample_of_a_whole_is_that_of_its_parts_samples(ids: list[str], n: int, cut: int) -> None:
    parts = [sample_ids(part, n, seed=3, purpose="p") for part in (ids[:cut], ids[cut:])]
    assert sample_ids(set().union(*parts), n, seed=3, purpose="p") == sample_ids(
        ids, n, seed=3, purpose="p"
    )


@given(IDS, st.integers(0, 8), st.text(min_size=1, max_size=4))
def test_sample_of_a_source_that_grew_loses_at_most_one_to_one(
    ids: list[str], n: int, new: str
) -> None:
    before = sample_ids(ids, n, seed=3, purpose="p")
    after = sample_ids({*ids, new}, n, seed=3, purpose="p")
    assert len(before - after) <= 1
    assert after - before <= {new}
