from __future__ import annotations

import numpy as np
import pytest

from mira_megatron.grouping.unit_vectors import cosine_matrix, mean_direction, unit_rows


def test_rows_get_length_one_and_zeros_stay() -> None:
    rows = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    assert rows.dtype == np.float32
    assert rows.tolist() == [pytest.approx([0.6, 0.8]), [0.0, 0.0]]


def test_mean_direction_has_length_one() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert mean_direction(rows).tolist() == pytest.approx([0.5**0.5, 0.5**0.5])


def test_mean_direction_of_opposites_is_zero() -> None:
    assert mean_direction(np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)).tolist() == [0.0, 0.0]


def test_cosines_are_those_of_the_angles_whatever_the_lengths() -> None:
    rows = np.array([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0], [0.0, 0.0]], np.float32)
    half = 0.5**0.5
    assert cosine_matrix(rows).tolist() == [
        pytest.approx([1.0, 0.0, half, 0.0], abs=1e-7),  # float32
        pytest.approx([0.0, 1.0, half, 0.0], abs=1e-7),
        pytest.approx([half, half, 1.0, 0.0], abs=1e-7),
        [0.0, 0.0, 0.0, 0.0],
    ]
