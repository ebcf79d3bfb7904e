"""Vectors that only their direction matters of.

Shapes: N vectors, D dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def unit_rows(vector_ND: Floats) -> Floats:
    """Returns the rows at length 1; a row of zeros stays as it is."""
    length_N = np.sqrt(np.einsum("nd,nd->n", vector_ND, vector_ND, dtype=np.float64))
    divisor_N = np.where(length_N > 0, length_N, 1.0).astype(np.float32)
    unit_ND: Floats = np.divide(vector_ND, divisor_N[:, np.newaxis], dtype=np.float32)
    return unit_ND


def mean_direction(vector_ND: Floats) -> Floats:
    """Returns the mean of the rows at length 1, shape (D,); zeros where they cancel out."""
    mean_1D = np.asarray(vector_ND.mean(axis=0, dtype=np.float64, keepdims=True))
    return unit_rows(mean_1D).reshape(-1)


def cosine_matrix(vector_ND: Floats) -> NDArray[np.float64]:
    """Returns the cosine of every two rows; 0 with a row of zeros, also of it with itself."""
    unit_ND = unit_rows(vector_ND).astype(np.float64)
    return np.clip(unit_ND @ unit_ND.T, -1.0, 1.0)
