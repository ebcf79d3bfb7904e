from __future__ import annotations

import pytest

from mira_megatron.written_numbers import duration, short


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0, "0"),
        (9999.4, "9,999"),
        (9999.6, "10.0k"),
        (10_000, "10.0k"),
        (99_960, "100k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (12_340_000, "12.3M"),
        (2.5e12, "2.50T"),
        (7e15, "7,000T"),
    ],
)
def test_short_has_three_digits_and_a_unit(number: float, written: str) -> None:
    assert short(number) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (19_680, "5 h 28 min"),
        (86_390, "1 d 0 h"),
        (183_600, "2 d 3 h"),
    ],
)
def test_duration_has_its_two_largest_units(seconds: float, written: str) -> None:
    assert duration(seconds) == written
