"""pass@k: how likely one of k answers to a task is right, estimated from n of them."""

from __future__ import annotations

from math import prod


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Returns the unbiased estimate 1 - C(n - c, k) / C(n, k) of Chen et al. (arXiv 2107.03374).

    As a product, so that no large binomial is computed. Raises ValueError for k outside 1..n, or a
    number of right answers outside 0..n.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k={k} must be in 1..{num_samples}, the number of samples")
    if not 0 <= num_right <= num_samples:
        raise ValueError(f"num_right={num_right} must be in 0..{num_samples}")
    num_wrong = num_samples - num_right
    if num_wrong < k:
        return 1.0
    return 1.0 - prod(1.0 - k / number for number in range(num_wrong + 1, num_samples + 1))
