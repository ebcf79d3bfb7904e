"""Scores of arms on benchmarks: by hand, with unknown verdicts, in part, and where nothing is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from evaluations import bits, compared, write_entry, write_nine

from mira_megatron.ablation.benchmarks import MEASURED, Benchmarks, arms_scores
from mira_megatron.ablation.estimates import ArmNumbers, student_p
from mira_megatron.eval.comparison.outputs import read_evaluation
from mira_megatron.eval.comparison.table import MACRO
from mira_megatron.eval.statistics.resampling import Resampling
from mira_megatron.eval.verdicts import Status

FEW = Resampling(num_resamples=400, seed=1)
MANY = Resampling(num_resamples=20_000, seed=1)


def scored(
    folder: Path,
    arms: Mapping[str, Sequence[str]],
    reference: str | None = None,
    resampling: Resampling = FEW,
) -> tuple[Benchmarks, dict[str, ArmNumbers]]:
    """Returns the scores of arms whose models, one per seed, were evaluated into `folder`."""
    models = {model for of_arm in arms.values() for model in of_arm}
    return arms_scores(
        {model: read_evaluation(folder / model) for model in sorted(models)},
        {arm: dict(enumerate(of_arm)) for arm, of_arm in arms.items()},
        reference=reference,
        resampling=resampling,
    )


def write_mbpp(folder: Path, **right: str) -> None:
    """Writes a model's verdicts on MBPP, a digit per task: 1 right, 0 wrong, ? unknown."""
    for model, digits in right.items():
        statuses = bits(digits)
        for number, digit in enumerate(digits):
            if digit == "?":
                statuses[f"t{number}"] = [Status.INFRA]
        write_entry(folder / model, "mbpp", {"mbpp": statuses})


def test_score_is_the_mean_over_seeds_of_the_share_of_right_tasks(tmp_path: Path) -> None:
    write_mbpp(tmp_path, a0="1100", a1="1110", b0="1000", b1="0000")
    basis, found = scored(tmp_path, {"a": ["a0", "a1"], "b": ["b0", "b1"]}, reference="b")
    assert found["a"].values["mbpp"].by_seed == pytest.approx((50, 75))
    assert found["a"].values["mbpp"].value == pytest.approx(62.5)
    assert found["a"].gaps["mbpp"].value == pytest.approx(50)
    assert found["b"].gaps == {}
    assert basis.num_tasks == {"mbpp": 4}


def test_averages_are_those_of_compare_where_the_suite_is_whole(tmp_path: Path) -> None:
    write_nine(tmp_path / "a", share=0.4)
    basis, found = scored(tmp_path, {"a": ["a"]})
    (told,) = compared(tmp_path / "a").arms
    assert basis.headline == MACRO
    assert MEASURED not in basis.titles
    names = (MACRO, "micro9", "code_generation", "sql", "multipl_e", "bird", "multipl_e_cpp")
    for name in names:
        assert found["a"].values[name].value == pytest.approx(told.scores[name].value)
    assert "swe" not in basis.titles  # a category of one benchmark is that benchmark
    assert MACRO not in basis.missing


def test_part_of_the_suite_has_the_mean_of_what_was_measured_and_no_macro(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    write_entry(folder, "mbpp", {"mbpp": bits("10"), "mbpp_plus": bits("00")})
    for language, right in (("cpp", "1111"), ("java", "1100")):
        write_entry(folder, f"multipl_e_{language}", {f"multipl_e_{language}": bits(right)})
    basis, found = scored(tmp_path, {"a": ["a"]})
    assert basis.headline == MEASURED
    # MBPP 50, MBPP+ 0, MultiPL-E (100 + 50) / 2.
    assert found["a"].values[MEASURED].value == pytest.approx((50 + 0 + 75) / 3)
    assert MACRO not in found["a"].values
    assert basis.missing[MACRO].startswith("7 of 9 missing: BigCodeBench Full")
    assert basis.missing["multipl_e"].startswith("6 of 8 missing: MultiPL-E cs")
    assert "micro9" not in basis.missing
    assert basis.missing["code_generation"].startswith("3 of 5 missing: BigCodeBench Full")
    assert "sql" not in basis.missing  # nothing of it was asked for


def test_task_of_unknown_verdict_in_one_model_is_left_out_of_all_and_counted(
    tmp_path: Path,
) -> None:
    write_mbpp(tmp_path, a="11?0", b="1011", c="0111")
    basis, found = scored(tmp_path, {"a": ["a"], "b": ["b"], "c": ["c"]}, reference="c")
    assert basis.num_tasks == {"mbpp": 3}
    assert basis.num_left_out == {"mbpp": 1}
    assert found["a"].values["mbpp"].value == pytest.approx(200 / 3)
    assert found["b"].values["mbpp"].value == pytest.approx(200 / 3)
    assert found["b"].gaps["mbpp"].value == pytest.approx(0)
    assert basis.statuses["a"]["mbpp"] == {"pass": 2, "fail": 1, "infra": 1}


def test_benchmark_without_a_known_task_is_missing_with_why(tmp_path: Path) -> None:
    write_mbpp(tmp_path, a="??", b="11")
    basis, found = scored(tmp_path, {"a": ["a"], "b": ["b"]})
    assert basis.headline is None
    assert basis.missing["mbpp"].startswith("no task whose verdict is known in every model")
    assert found["a"].values == {}


def test_benchmark_that_one_model_lacks_is_missing_and_the_others_stand(tmp_path: Path) -> None:
    write_mbpp(tmp_path, a="10", b="11")
    write_entry(tmp_path / "a", "livecodebench", {"livecodebench": bits("1111")})
    basis, found = scored(tmp_path, {"a": ["a"], "b": ["b"]}, reference="b")
    assert basis.missing["livecodebench"] == "not graded: b"
    assert found["a"].values[MEASURED].value == pytest.approx(50)


def test_models_that_were_not_evaluated_alike_are_refused_with_the_field(tmp_path: Path) -> None:
    write_mbpp(tmp_path, a="10")
    write_entry(tmp_path / "b", "mbpp", {"mbpp": bits("10")}, protocol="q")
    with pytest.raises(ValueError, match=r"not evaluated alike.*\n  protocol is a: p, b: q \(mbpp"):
        scored(tmp_path, {"a": ["a"], "b": ["b"]})


def test_error_of_a_difference_holds_the_spread_of_seeds(tmp_path: Path) -> None:
    """Every task is right or wrong with its half: what is left is the standard error of 3 seeds."""
    # Of 100 tasks the first n are right; in pairs of the reference all are wrong.
    right = [10, 20, 60]
    write_mbpp(
        tmp_path,
        **{f"a{n}": "1" * each + "0" * (100 - each) for n, each in enumerate(right)},
        **{f"b{n}": "0" * 100 for n in range(3)},
    )
    arms = {"a": ["a0", "a1", "a2"], "b": ["b0", "b1", "b2"]}
    gap = scored(tmp_path, arms, "b", MANY)[1]["a"].gaps["mbpp"]
    assert gap.value == pytest.approx(30)
    # Tasks add their own part to that of seeds, about 4 points to 15.
    of_seeds = float(np.std(right, ddof=1)) / math.sqrt(3)
    assert gap.error is not None
    assert of_seeds < gap.error < 1.1 * of_seeds
    assert gap.p == pytest.approx(student_p(gap.value, gap.error, 3))
    assert gap.verdict == "no significant difference"


def test_interval_is_of_clusters_and_not_of_tasks(tmp_path: Path) -> None:
    statuses = {f"t{n}": [Status.PASS if n < 50 else Status.FAIL] for n in range(100)}
    for model, size in (("tasks", 1), ("clusters", 10)):
        clusters = {f"t{n}": str(n // size) for n in range(100)}
        write_entry(tmp_path / model, "spider", {"spider": statuses}, clusters=clusters)
    widths = {}
    for model in ("tasks", "clusters"):
        interval = scored(tmp_path, {model: [model]}, resampling=MANY)[1][model].values["spider"]
        assert interval.interval is not None
        widths[model] = interval.interval.high - interval.interval.low
    assert widths["clusters"] == pytest.approx(math.sqrt(10) * widths["tasks"], rel=0.1)


def test_more_right_tasks_are_better_where_all_seeds_agree(tmp_path: Path) -> None:
    models = {f"a{n}": "1" * (60 + n) + "0" * (40 - n) for n in range(4)}
    models |= {f"b{n}": "1" * (20 + n) + "0" * (80 - n) for n in range(4)}
    write_mbpp(tmp_path, **models)
    arms = {arm: [f"{arm}{n}" for n in range(4)] for arm in "ab"}
    better = scored(tmp_path, arms, "b")[1]["a"].gaps
    assert better[MEASURED].verdict == "better"
    assert scored(tmp_path, arms, "a")[1]["b"].gaps["mbpp"].verdict == "worse"


def test_holm_corrects_the_headline_and_its_parts_each_for_themselves(tmp_path: Path) -> None:
    arms = {arm: [f"{arm}{seed}" for seed in range(3)] for arm in "rst"}
    for number, models in enumerate(arms.values()):
        for seed, model in enumerate(models):
            digits = ("1" * (20 + 9 * number + 3 * seed)).ljust(60, "0")
            write_mbpp(tmp_path, **{model: digits})
            write_entry(tmp_path / model, "livecodebench", {"livecodebench": bits(digits[::2])})
    found = scored(tmp_path, arms, "r")[1]
    heads = sorted((found[arm].gaps[MEASURED] for arm in "st"), key=lambda gap: gap.p or 0)
    assert heads[0].p_holm == pytest.approx(2 * (heads[0].p or 0))
    parts = sorted(
        (found[arm].gaps[name] for arm in "st" for name in ("mbpp", "livecodebench")),
        key=lambda gap: gap.p or 0,
    )
    assert parts[0].p_holm == pytest.approx(4 * (parts[0].p or 0))


def test_interval_holds_no_percentage_that_cannot_be(tmp_path: Path) -> None:
    write_mbpp(tmp_path, a="1111111110")
    interval = scored(tmp_path, {"a": ["a"]})[1]["a"].values["mbpp"].interval
    assert interval is not None
    assert interval.high == 100


def test_one_cluster_of_tasks_has_no_interval_and_is_not_tested(tmp_path: Path) -> None:
    for model, right in (("a", "11"), ("b", "10")):
        clusters = {"t0": "one", "t1": "one"}
        write_entry(tmp_path / model, "bird", {"bird": bits(right)}, clusters=clusters)
    found = scored(tmp_path, {"a": ["a", "a"], "b": ["b", "b"]}, "b")[1]
    assert found["a"].values["bird"].interval is None
    assert found["a"].gaps["bird"].verdict == "not tested"
    assert found["a"].gaps[MEASURED].p is None
