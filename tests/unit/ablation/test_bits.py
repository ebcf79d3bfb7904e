"""Bits per byte of arms: by hand, by rules that hold for any numbers, and where nothing is true."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mira_megatron.ablation.bits import MEAN, HeldOut, arms_bits
from mira_megatron.ablation.estimates import ArmNumbers, student_p
from mira_megatron.eval.statistics.resampling import Resampling

LN2 = math.log(2)
FEW = Resampling(num_resamples=400, seed=1)


def held_out_of(
    sizes: Mapping[str, Sequence[float]],
    bits: Mapping[str, Mapping[str, Sequence[float]]],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> HeldOut:
    """Returns documents of these bytes by source, and the bits of each model on them."""
    return HeldOut(
        record_ids={name: [str(n) for n in range(len(of))] for name, of in sizes.items()},
        bytes_D={name: np.array(of, dtype=float) for name, of in sizes.items()},
        nats_D={
            model: {name: LN2 * np.array(of) for name, of in by_source.items()}
            for model, by_source in bits.items()
        },
        groups=groups or {name: [name] for name in sizes},
    )


def two_arms(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    sizes: Sequence[float],
    resampling: Resampling = FEW,
) -> dict[str, ArmNumbers]:
    """Returns two arms of one source, the second the reference; their bits by seed."""
    bits = {f"a{seed}": {"s": of} for seed, of in enumerate(first)}
    bits |= {f"b{seed}": {"s": of} for seed, of in enumerate(second)}
    arms = {
        "a": {seed: f"a{seed}" for seed in range(len(first))},
        "b": {seed: f"b{seed}" for seed in range(len(second))},
    }
    found = held_out_of({"s": sizes}, bits)
    return arms_bits(found, arms, reference="b", resampling=resampling)


def test_groups_add_up_their_sources_and_the_mean_is_unweighted() -> None:
    held_out = held_out_of(
        {"x": [10, 30], "y": [60], "z": [5, 5]},
        {"m": {"x": [20, 30], "y": [150], "z": [10, 30]}},
        {"g": ["x", "y"], "h": ["z"]},
    )
    found = arms_bits(held_out, {"m": {1: "m"}}, reference=None, resampling=FEW)["m"]
    assert found.values["g"].value == pytest.approx(200 / 100)
    assert found.values["h"].value == pytest.approx(40 / 10)
    assert found.values[MEAN].value == pytest.approx(3.0)
    assert found.gaps == {}
    # One document of a source says nothing of the others.
    assert found.values["g"].interval is None
    assert found.values[MEAN].interval is None
    assert found.values["h"].interval is not None


def test_value_is_the_mean_over_seeds() -> None:
    found = two_arms([[10, 20], [30, 40]], [[10, 10], [10, 10]], [10, 10])
    assert found["a"].values["s"].by_seed == pytest.approx((1.5, 3.5))
    assert found["a"].values["s"].value == pytest.approx(2.5)
    assert found["a"].gaps["s"].value == pytest.approx(1.5)
    assert found["b"].gaps == {}


def test_error_of_a_difference_holds_the_spread_of_seeds() -> None:
    """Documents all differ by the same per seed: what is left is the standard error of 3 seeds."""
    drawn = np.random.default_rng(0)
    sizes = drawn.integers(50, 100, 200).astype(float)
    base = 2 * sizes + drawn.normal(0, 10, 200)
    off = [0.1, 0.2, 0.6]
    first = [base + each * sizes for each in off]
    many = Resampling(num_resamples=20_000, seed=1)
    gap = two_arms([each.tolist() for each in first], [base.tolist()] * 3, sizes.tolist(), many)
    found = gap["a"].gaps["s"]
    assert found.value == pytest.approx(0.3)
    assert found.error == pytest.approx(np.std(off, ddof=1) / math.sqrt(3), rel=0.03)
    # Student's quantile for two degrees of freedom.
    assert found.interval is not None
    assert found.error is not None
    assert found.interval.high - found.value == pytest.approx(4.302653 * found.error, rel=1e-5)
    assert found.p == pytest.approx(student_p(found.value, found.error, 3))
    assert found.verdict == "no significant difference"


def test_error_of_a_difference_holds_the_spread_of_documents() -> None:
    """Seeds are all alike: what is left is the ratio estimator's standard error."""
    drawn = np.random.default_rng(1)
    sizes = drawn.integers(50, 150, 400).astype(float)
    more = 0.2 * sizes + drawn.normal(0, 9, 400)
    base = 2 * sizes
    many = Resampling(num_resamples=20_000, seed=1)
    found = two_arms([(base + more).tolist()] * 2, [base.tolist()] * 2, sizes.tolist(), many)
    residuals = more - sizes * more.sum() / sizes.sum()
    error = math.sqrt(400 / 399 * float((residuals**2).sum())) / float(sizes.sum())
    assert found["a"].gaps["s"].error == pytest.approx(error, rel=0.03)


def test_lower_bits_are_better_where_all_seeds_agree() -> None:
    sizes = [100.0] * 50
    base = [200.0 + number for number in range(50)]
    lower = [[each - 20 - 0.1 * seed for each in base] for seed in range(4)]
    found = two_arms(lower, [base] * 4, sizes)["a"].gaps["s"]
    assert found.verdict == "better"
    assert two_arms([base] * 4, lower, sizes)["a"].gaps["s"].verdict == "worse"


def test_one_seed_is_not_tested() -> None:
    found = two_arms([[10.0, 25.0, 30.0]], [[20.0, 20.0, 20.0]], [10, 10, 10])["a"].gaps["s"]
    assert found.interval is not None
    assert (found.p, found.p_holm, found.verdict) == (None, None, "not tested")


def test_arm_that_is_the_reference_in_all_but_name_does_not_differ() -> None:
    base = [[20.0, 31.0, 42.0], [21.0, 30.0, 41.0]]
    found = two_arms(base, base, [10, 10, 10])["a"].gaps["s"]
    assert (found.value, found.p, found.verdict) == (0, 1, "no significant difference")


def test_documents_of_few_bytes_do_not_blow_up_the_interval() -> None:
    found = two_arms([[3.0, 4000.0]], [[3.0, 4000.0]], [1, 1000])["b"].values["s"]
    assert found.interval is not None
    assert -10 < found.interval.low < found.value < found.interval.high < 20


def test_holm_corrects_the_mean_and_the_groups_each_for_themselves() -> None:
    drawn = np.random.default_rng(2)
    sizes = {name: [100.0] * 30 for name in "xy"}
    arms = {arm: {seed: f"{arm}{seed}" for seed in range(3)} for arm in ("r", "s", "t")}
    bits = {
        model: {name: drawn.normal(200 + 9 * (arm == "t"), 5, 30).tolist() for name in "xy"}
        for arm, models in arms.items()
        for model in models.values()
    }
    found = arms_bits(held_out_of(sizes, bits), arms, reference="r", resampling=FEW)
    means = {arm: found[arm].gaps[MEAN] for arm in "st"}
    raw = {arm: gap.p or 0.0 for arm, gap in means.items()}
    least = min(raw, key=lambda arm: raw[arm])
    assert means[least].p_holm == pytest.approx(2 * raw[least])
    groups = [found[arm].gaps[name] for arm in "st" for name in "xy"]
    lowest = min(groups, key=lambda gap: gap.p or 0.0)
    assert lowest.p_holm == pytest.approx(4 * (lowest.p or 0.0))


def test_arms_that_differ_by_luck_alone_are_seldom_found_to_differ() -> None:
    """Six trainings of one recipe on the same 100 documents, taken for two arms of three seeds."""
    drawn = np.random.default_rng(3)
    num_found = 0
    for trial in range(200):
        sizes = drawn.integers(50, 150, 100).astype(float)
        hard = 2 * sizes + drawn.normal(0, 20, 100)
        runs = [
            (hard + sizes * drawn.normal(0, 0.05) + drawn.normal(0, 3, 100)).tolist()
            for _ in range(6)
        ]
        resampling = Resampling(num_resamples=200, seed=trial)
        gap = two_arms(runs[:3], runs[3:], sizes.tolist(), resampling)["a"].gaps["s"]
        num_found += gap.p is not None and gap.p < 0.05
    # 10 are expected; over 20 has a chance below 0.1 %.
    assert num_found <= 20


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1e6), st.floats(0, 1e6)), min_size=2),
    st.integers(1, 4),
)
def test_difference_is_of_the_values_and_lies_in_its_interval(
    documents: list[tuple[int, float, float]], num_seeds: int
) -> None:
    sizes, first, second = (list(column) for column in zip(*documents, strict=True))
    found = two_arms(
        [first] * num_seeds,
        [second] * num_seeds,
        [float(size) for size in sizes],
        Resampling(num_resamples=100, seed=0),
    )
    gap = found["a"].gaps["s"]
    values = [found[arm].values["s"].value for arm in "ab"]
    assert values == pytest.approx([sum(each) / sum(sizes) for each in (first, second)])
    assert gap.value == pytest.approx(values[0] - values[1])
    assert gap.interval is not None
    if num_seeds > 1:
        slack = 1e-9 * (1 + abs(gap.value))
        assert gap.interval.low - slack <= gap.value <= gap.interval.high + slack


def test_students_p_is_the_tables() -> None:
    assert student_p(4.302653, 1.0, 3) == pytest.approx(0.05, abs=1e-6)
    assert student_p(-12.7062, 1.0, 2) == pytest.approx(0.05, abs=1e-5)
    assert student_p(0.0, 0.0, 3) == 1
    assert student_p(1.0, 0.0, 3) is None
    assert student_p(1.0, 0.5, 1) is None
