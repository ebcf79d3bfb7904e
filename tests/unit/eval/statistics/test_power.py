from __future__ import annotations

import pytest

from mira_megatron.eval.statistics.power import minimum_detectable_effect, power


def test_the_minimum_detectable_effect_is_found_in_80_percent_of_cases() -> None:
    assert minimum_detectable_effect(1.0) == pytest.approx(2.8016, abs=1e-4)
    assert power(minimum_detectable_effect(0.7), 0.7) == pytest.approx(0.8, abs=1e-4)


def test_no_difference_is_found_at_the_level_of_the_test() -> None:
    assert power(0.0, 3.0) == pytest.approx(0.05)
    assert power(-2.0, 1.0) == pytest.approx(power(2.0, 1.0))


def test_power_without_an_error_is_refused() -> None:
    with pytest.raises(ValueError, match="standard_error=0"):
        power(1.0, 0.0)
