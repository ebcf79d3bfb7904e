from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mira_megatron.corpus.ingest import record_id
from mira_megatron.scoring.record_seed import record_seed

_RECORD = "0f" * 16


def test_record_seed_is_what_it_was() -> None:
    assert record_seed(7, _RECORD, 1) == 1573034870


def test_record_seed_of_another_record_recipe_or_attempt_is_another() -> None:
    seeds = {
        record_seed(seed, name, attempt)
        for seed in range(10)
        for name in (f"{number:032x}" for number in range(10))
        for attempt in (1, 2, 3)
    }
    assert len(seeds) == 300


def test_record_seed_of_a_copy_is_that_of_its_record() -> None:
    first, third = (record_id("wiki", "hash", ordinal) for ordinal in (0, 2))
    assert first != third
    assert record_seed(7, first, 1) == record_seed(7, third, 1)


def test_record_seed_of_an_id_that_only_looks_like_a_copy_is_its_own() -> None:
    assert record_seed(7, "doc-1", 1) != record_seed(7, "doc-2", 1)


@given(st.integers(), st.text(), st.integers(1, 1 << 40))
def test_record_seed_fits_31_bits(seed: int, name: str, attempt: int) -> None:
    assert 0 <= record_seed(seed, name, attempt) < 1 << 31
