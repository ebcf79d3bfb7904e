from __future__ import annotations

from pathlib import Path

import pytest
from evaluations import FAIL, PASS, bits, compared, write_entry, write_nine

from mira_megatron.eval.comparison.differences import MCNEMAR, SIGN_FLIPS
from mira_megatron.eval.comparison.pairs import FAMILIES
from mira_megatron.eval.comparison.table import AVERAGES, BENCHMARKS
from mira_megatron.eval.statistics.paired import holm, mcnemar_p, paired_interval


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    shares = {"a": 0.5, "b": 0.56, "c": 0.7}
    return [
        write_nine(tmp_path / name, share=share, seed=number)
        for number, (name, share) in enumerate(shares.items())
    ]


def test_single_tasks_are_tested_by_mcnemar_with_gains_losses_and_flips(tmp_path: Path) -> None:
    write_entry(tmp_path / "a", "mbpp", {"mbpp": bits("1100000011")})
    write_entry(tmp_path / "b", "mbpp", {"mbpp": bits("0111111011")})
    (pair,) = compared(tmp_path / "a", tmp_path / "b").pairs
    found = pair.differences["mbpp"]
    assert found.value == pytest.approx(40.0)
    assert (found.num_gained, found.num_lost, found.method) == (5, 1, MCNEMAR)
    assert found.p == mcnemar_p(5, 1)
    assert found.interval == paired_interval(5, 1, 10).scaled(100)
    assert [flip.task_id for flip in pair.flips] == ["t0", "t2", "t3", "t4", "t5", "t6"]
    assert [(flip.baseline, flip.other) for flip in pair.flips[:2]] == [(1.0, 0.0), (0.0, 1.0)]


def test_tasks_of_one_database_are_tested_by_signs_of_databases(tmp_path: Path) -> None:
    clusters = {f"t{n}": str(n // 10) for n in range(40)}
    for name, share in (("a", 3), ("b", 7)):
        tasks = {task: [PASS if n % 10 < share else FAIL] for n, task in enumerate(clusters)}
        write_entry(tmp_path / name, "spider", {"spider": tasks}, clusters=clusters)
    found = compared(tmp_path / "a", tmp_path / "b", resamples=2000).pairs[0].differences["spider"]
    # Four databases that all went up: both all-equal choices of signs of 16 are as far.
    assert found.method == SIGN_FLIPS
    assert found.p == pytest.approx(2 / 16, abs=0.03)
    assert (found.num_gained, found.num_lost) == (16, 0)


def test_an_average_is_tested_with_what_hangs_together(three: list[Path]) -> None:
    pair = compared(three[0], three[2], resamples=2000).pairs[0]
    macro = pair.differences["macro"]
    assert macro.method == SIGN_FLIPS
    assert macro.p is not None
    assert macro.p < 0.01
    assert macro.interval is not None
    assert macro.value is not None
    assert 0 < macro.interval.low < macro.value < macro.interval.high
    assert macro.resolves == pytest.approx(2.8016 * (macro.error or 0), rel=1e-4)


def test_pairing_makes_a_difference_surer_than_two_intervals(three: list[Path]) -> None:
    comparison = compared(three[0], three[1], resamples=2000)
    apart = comparison.arms[0].scores["macro"].resolves
    paired = comparison.pairs[0].differences["macro"].resolves
    assert apart is not None
    assert paired is not None
    assert paired < 0.7 * apart


def test_an_arm_beside_its_copy_differs_in_nothing(tmp_path: Path) -> None:
    (pair,) = compared(write_nine(tmp_path / "a"), write_nine(tmp_path / "b")).pairs
    for found in pair.differences.values():
        assert found.value == 0.0
        assert found.p == 1.0
    assert pair.flips == ()
    assert pair.differences["macro"].interval is not None
    assert pair.differences["macro"].error == 0.0


def test_a_category_of_one_benchmark_is_that_benchmark(three: list[Path]) -> None:
    found = compared(*three[:2]).pairs[0].differences
    for field in ("value", "interval", "p", "p_holm", "method", "num_gained"):
        assert getattr(found["swe"], field) == getattr(found["swe_multilingual"], field)


def test_holm_covers_all_pairs_in_two_families(three: list[Path]) -> None:
    pairs = compared(*three).pairs
    assert [(pair.baseline, pair.other) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for names in FAMILIES.values():
        tested = [(pair.differences[name].p, pair.differences[name].p_holm)
                  for pair in pairs for name in names]  # fmt: skip
        ps = [p for p, _ in tested if p is not None]
        assert len(ps) == 3 * len(names)
        assert [adjusted for _, adjusted in tested] == pytest.approx(holm(ps))
    assert set(FAMILIES["parts"]) == {*BENCHMARKS, "code_generation", "sql", "micro9"}
    assert pairs[0].differences["multipl_e_cpp"].p is not None
    assert pairs[0].differences["multipl_e_cpp"].p_holm is None
    assert pairs[0].differences["spider_strict"].p_holm is None


def test_with_a_baseline_every_other_arm_is_compared_with_it(three: list[Path]) -> None:
    pairs = compared(*three, baseline="b").pairs
    assert [(pair.baseline, pair.other) for pair in pairs] == [("b", "a"), ("b", "c")]
    mirrored = compared(*three, baseline="a").pairs[0].differences["macro"]
    assert pairs[0].differences["macro"].value == pytest.approx(-(mirrored.value or 0))
    with pytest.raises(ValueError, match="--baseline 'z' is none of the arms: a, b, c"):
        compared(*three, baseline="z")


def test_what_one_of_two_lacks_has_a_reason_and_no_test(tmp_path: Path) -> None:
    write_nine(tmp_path / "a")
    write_nine(tmp_path / "b", without=["bird"])
    found = compared(tmp_path / "a", tmp_path / "b").pairs[0].differences
    assert (found["bird"].value, found["bird"].p) == (None, None)
    assert str(found["bird"].reason).startswith("b: not graded: no results in")
    assert found["macro"].reason == "b: 1 of 4 missing: SQL"
    assert found["swe"].value == 0.0


def test_seeds_are_compared_by_their_mean(tmp_path: Path) -> None:
    for name, right in (("a", "1100"), ("b0", "1110"), ("b1", "0110")):
        write_entry(tmp_path / name, "mbpp", {"mbpp": bits(right)})
    labelled = [("b", tmp_path / "b0"), ("b", tmp_path / "b1")]
    (pair,) = compared(tmp_path / "a", labelled=labelled).pairs
    found = pair.differences["mbpp"]
    assert found.value == pytest.approx(12.5)
    assert found.method == SIGN_FLIPS
    assert [(flip.task_id, flip.other) for flip in pair.flips] == [("t0", 0.5), ("t2", 1.0)]


def test_one_database_has_a_difference_without_a_test(tmp_path: Path) -> None:
    for name, right in (("a", "1100"), ("b", "1110")):
        tasks = bits(right)
        clusters = dict.fromkeys(tasks, "db")
        write_nine(tmp_path / name, without=["bird"])
        write_entry(tmp_path / name, "bird", {"bird": tasks}, clusters=clusters)
    found = compared(tmp_path / "a", tmp_path / "b").pairs[0].differences
    for name in ("bird", "sql", "macro"):
        assert found[name].value is not None
        assert (found[name].p, found[name].interval) == (None, None)
    assert "bird" in AVERAGES["sql"]
