from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from evaluations import FAIL, PASS, bits, compared, write_entry, write_nine

from mira_megatron.eval.comparison.arms import read_arms
from mira_megatron.eval.comparison.comparison import Comparison
from mira_megatron.eval.comparison.scores import Score
from mira_megatron.eval.comparison.table import AVERAGES, BENCHMARKS, CATEGORIES
from mira_megatron.eval.statistics.intervals import wilson
from mira_megatron.eval.verdicts import Status

PUBLISHED = Path(__file__).parents[4] / "eval/published/mira_paper.yaml"


def scores(comparison: Comparison, arm: int = 0) -> dict[str, Score]:
    return dict(comparison.arms[arm].scores)


def value(score: Score) -> float:
    assert score.value is not None
    return score.value


def test_averages_are_plain_means_of_what_the_table_says(tmp_path: Path) -> None:
    found = scores(compared(write_nine(tmp_path / "a")))
    for name, members in AVERAGES.items():
        mean = fmean(value(found[member]) for member in members)
        assert found[name].value == pytest.approx(mean), name
    assert found["macro"].value == pytest.approx(fmean(value(found[name]) for name in CATEGORIES))
    assert found["micro9"].value == pytest.approx(fmean(value(found[name]) for name in BENCHMARKS))
    assert found["macro"].interval is not None
    assert found["macro"].interval.low < value(found["macro"]) < found["macro"].interval.high
    assert len(BENCHMARKS) == 9
    assert len(AVERAGES["multipl_e"]) == 8


def test_a_macro_without_one_of_its_categories_is_missing_with_the_reason(tmp_path: Path) -> None:
    folder = write_nine(tmp_path / "a", without=["livecodebench", "multipl_e_cs"])
    found = scores(compared(folder))
    assert found["macro"].value is None
    assert found["macro"].reason == "2 of 4 missing: Code generation, MultiPL-E"
    assert found["multipl_e"].reason == "1 of 8 missing: MultiPL-E cs"
    assert found["livecodebench"].reason == f"not graded: no results in {folder}"
    assert found["sql"].value is not None


def test_a_benchmark_of_single_tasks_has_wilson_s_interval(tmp_path: Path) -> None:
    write_entry(tmp_path / "a", "mbpp", {"mbpp": bits("1110010101")})
    found = scores(compared(tmp_path / "a"))["mbpp"]
    assert found.method == "wilson"
    assert found.interval == wilson(0.6, 10).scaled(100)


def test_tasks_of_one_database_count_as_one_draw(tmp_path: Path) -> None:
    tasks = {f"t{n}": [PASS if n < 20 else FAIL] for n in range(40)}
    clusters = {task: str(number // 10) for number, task in enumerate(tasks)}
    write_entry(tmp_path / "a", "spider", {"spider": tasks}, clusters=clusters)
    found = scores(compared(tmp_path / "a"))["spider"]
    assert found.method == "clustered"
    assert found.interval is not None
    assert found.interval.high - found.interval.low > 70  # four databases
    assert found.graded is not None
    assert (found.graded.num_tasks, found.graded.num_clusters) == (40, 4)


def test_several_samples_give_pass_at_k_and_no_plain_wilson(tmp_path: Path) -> None:
    tasks = {"a": [PASS] * 5, "b": [PASS, FAIL, FAIL, FAIL, FAIL], "c": [FAIL] * 5}
    write_entry(tmp_path / "a", "livecodebench", {"livecodebench": tasks})
    found = scores(compared(tmp_path / "a"))["livecodebench"]
    assert found.value == pytest.approx(40.0)
    assert found.graded is not None
    assert found.graded.pass_at == pytest.approx({1: 40.0, 5: 200 / 3})
    assert (found.method, found.graded.wilson) == ("clustered", None)


def test_seeds_of_one_label_are_one_arm(tmp_path: Path) -> None:
    write_entry(tmp_path / "s0", "mbpp", {"mbpp": bits("1100")})
    write_entry(tmp_path / "s1", "mbpp", {"mbpp": bits("1000")})
    comparison = compared(labelled=[("g", tmp_path / "s0"), ("g", tmp_path / "s1")])
    (arm,) = comparison.arms
    found = arm.scores["mbpp"]
    assert found.value == pytest.approx(37.5)
    assert found.by_run == pytest.approx((50.0, 25.0))
    assert found.deviation_of_runs == pytest.approx(stdev((50.0, 25.0)))
    assert found.method == "clustered"


def test_a_benchmark_that_one_seed_lacks_is_missing(tmp_path: Path) -> None:
    write_entry(tmp_path / "s0", "mbpp", {"mbpp": bits("1100")})
    write_entry(tmp_path / "s1", "spider", {"spider": bits("1000")})
    found = scores(compared(labelled=[("g", tmp_path / "s0"), ("g", tmp_path / "s1")]))
    assert (found["mbpp"].value, found["mbpp"].reason) == (None, "graded in 1 of 2 runs")


def test_lost_answers_bound_the_score(tmp_path: Path) -> None:
    lost = {"t7": [Status.INFRA], "t8": [Status.TRUNCATED]}
    write_entry(tmp_path / "a", "mbpp", {"mbpp": {**bits("1100"), **lost}})
    found = scores(compared(tmp_path / "a"))["mbpp"]
    assert found.value == pytest.approx(100 * 2 / 6)
    assert found.highest == pytest.approx(100 * 4 / 6)
    assert found.graded is not None
    assert found.graded.bounds.highest_by_infra == pytest.approx(50.0)
    assert found.graded.bounds.of_answered == pytest.approx(50.0)
    assert found.graded.statuses == {"pass": 2, "fail": 2, "truncated": 1, "infra": 1}


def test_one_database_has_a_score_without_an_interval(tmp_path: Path) -> None:
    write_nine(tmp_path / "a", without=["bird"])
    tasks = bits("1100")
    write_entry(tmp_path / "a", "bird", {"bird": tasks}, clusters=dict.fromkeys(tasks, "db"))
    found = scores(compared(tmp_path / "a"))
    assert (found["bird"].interval, found["bird"].no_interval) == (None, "one cluster of tasks")
    assert found["macro"].value is not None
    assert found["macro"].interval is None
    assert found["macro"].no_interval == "one cluster of tasks in BIRD"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"grader": "g/2"}, r"grader is a: g/1, b: g/2 \(mbpp\)"),
        ({"data": {"sha256": "1" * 64}}, r"data is a: 0{64}, b: 1{64} \(mbpp\)"),
        ({"isolation": 2}, r"isolation is a: 3, b: 2 \(mbpp\)"),
        ({"protocol": "q"}, r"protocol is a: p, b: q \(mbpp\)"),
    ],
)
def test_arms_of_unlike_protocols_are_refused_field_by_field(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    write_entry(tmp_path / "a", "mbpp", {"mbpp": bits("1100")})
    write_entry(tmp_path / "b", "mbpp", {"mbpp": bits("1110")}, **fields)
    with pytest.raises(ValueError, match=said):
        compared(tmp_path / "a", tmp_path / "b")
    allowed = compared(tmp_path / "a", tmp_path / "b", allows_unlike=True)
    assert list(allowed.unlike) == ["mbpp"]
    assert allowed.pairs[0].differences["mbpp"].is_unlike


def test_arms_of_other_tasks_are_unlike(tmp_path: Path) -> None:
    write_entry(tmp_path / "a", "mbpp", {"mbpp": bits("1100")})
    write_entry(tmp_path / "b", "mbpp", {"mbpp": bits("110")}, left_out=["t3"])
    with pytest.raises(ValueError, match=r"tasks is a: 4 .* b: 3 .*\(mbpp\)"):
        compared(tmp_path / "a", tmp_path / "b")
    allowed = compared(tmp_path / "a", tmp_path / "b", allows_unlike=True)
    assert allowed.pairs[0].differences["mbpp"].num_gained == 0


def test_seeds_of_unlike_protocols_are_refused_even_where_unlike_arms_are_not(
    tmp_path: Path,
) -> None:
    write_entry(tmp_path / "a", "mbpp", {"mbpp": bits("1100")})
    write_entry(tmp_path / "b", "mbpp", {"mbpp": bits("1110")}, grader="g/2")
    labelled = [("g", tmp_path / "a"), ("g", tmp_path / "b")]
    with pytest.raises(ValueError, match="'g' are not of one protocol"):
        compared(labelled=labelled, allows_unlike=True)


def test_labels_that_say_nothing_or_the_same_are_refused(tmp_path: Path) -> None:
    folders = [write_entry(tmp_path / each / "x", "mbpp", {"mbpp": bits("10")}) for each in "ab"]
    places = [folder.parent for folder in folders]
    with pytest.raises(ValueError, match="two folders would be called 'x'"):
        read_arms(places, [])
    with pytest.raises(ValueError, match="two folders would be called 'x'"):
        read_arms(places[:1], [("x", places[1])])
    with pytest.raises(ValueError, match="given twice"):
        read_arms(places[:1], [("y", places[0])])
    with pytest.raises(ValueError, match="is no label"):
        read_arms([], [("a\x1b[2J", places[0])])
    assert [arm.label for arm in read_arms(places[:1], [("y", places[1])])] == ["x", "y"]


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        compared()


def test_a_comparison_is_the_same_twice_and_another_with_another_seed(tmp_path: Path) -> None:
    folders = [write_nine(tmp_path / "a"), write_nine(tmp_path / "b", share=0.6, seed=2)]
    first, again = compared(*folders), compared(*folders)
    assert first.pairs == again.pairs
    assert scores(first) == scores(again)


def test_ours_beside_a_published_row(tmp_path: Path) -> None:
    found = compared(write_nine(tmp_path / "a"), against=PUBLISHED).published
    assert found is not None
    beside = {(each.row, each.name): each for each in found.beside}
    random = beside["random_25b", "macro"]
    assert str(random.published) == "62.55"  # recomputed, not the stated 63.23
    assert random.difference == pytest.approx(random.ours - 62.55)
    assert random.is_within is False
    assert len(found.beside) == 9 * 5
