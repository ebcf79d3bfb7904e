"""recipes/ablation_paper.yaml on the example cluster: its graph and its prices are golden.

Both are rewritten by `python tests/unit/test_ablation_paper.py`.
"""

from __future__ import annotations

import io
import json
import shutil
from collections import namedtuple
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from stood_in_recipes import stood_in

from mira_megatron.cli import main
from mira_megatron.config import load_recipe
from mira_megatron.doctor.finding import ERROR
from mira_megatron.doctor.preflight import preflight
from mira_megatron.launchers.cluster import load_cluster

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "ablation_paper.yaml"
CLUSTER = ROOT / "launchers" / "clusters" / "example.yaml"
DRY_RUN = ["submit", str(RECIPE), "--cluster", str(CLUSTER), "--dry-run"]
PLAN = ["plan", str(RECIPE)]
GOLDEN = {
    ROOT / "tests" / "golden" / "submit_ablation_paper.txt": DRY_RUN,
    ROOT / "tests" / "golden" / "plan_ablation_paper.txt": PLAN,
}
ARMS = ("raw", "random", "dataman", "dsir", "ppl", "mira_global", "mira_group", "mira_source")
Usage = namedtuple("Usage", "total used free")  # as shutil.disk_usage gives it


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_graph_and_prices_are_printed_arm_by_arm(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(GOLDEN[path]) == 0
    assert written(capsys.readouterr().out) == path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def planned() -> dict[str, Any]:
    told = io.StringIO()
    with redirect_stdout(told):
        assert main([*PLAN, "--json"]) == 0
    arms: dict[str, Any] = json.loads(told.getvalue())["arms"]
    return arms


def test_nine_arms_are_the_paper_s(planned: dict[str, Any]) -> None:
    assert {arm["name"] for arm in planned["arms"]} == {*ARMS, "base_sft"}
    tables = {arm["name"]: arm["score_table"] for arm in planned["arms"]}
    assert [tables[name] for name in ("mira_global", "mira_group", "mira_source")] == ["v1"] * 3
    assert tables["base_sft"] is None


def test_prices_of_arms_are_those_of_a_hand_s_arithmetic(planned: dict[str, Any]) -> None:
    own = {arm["name"]: {each["stage"]: each for each in arm["own"]} for arm in planned["arms"]}
    hour = 989e12 * 0.4 * 3600
    parameters = 14_770_033_664
    half, whole = 6 * parameters * 25e9 / hour, 6 * parameters * 50e9 / hour
    assert own["mira_group"]["midtrain"]["gpu_hours"] == pytest.approx(half)
    assert own["raw"]["midtrain"]["gpu_hours"] == pytest.approx(whole)
    assert "midtrain" not in own["base_sft"]
    tuned = 6 * parameters * 2e9 / hour  # two passes over a billion tokens
    (one,) = {each["instruct-sft"]["gpu_hours"] for each in own.values()}
    assert one == pytest.approx(tuned)
    # 0.1 % of 50 billion is more than 2 million of each of 6 sources; read twice, 2 operations.
    lost = 2 * parameters * 2 * 12e6 / hour
    assert own["base_sft"]["held-out"]["gpu_hours"] == pytest.approx(lost)
    asked = (6e6 / 10_000 + 6e6 / 1_500) / 3600
    (one,) = {each["eval"]["gpu_hours"] for each in own.values()}
    assert one == pytest.approx(asked)
    total = next(arm for arm in planned["arms"] if arm["name"] == "random")["total"]
    assert total["gpu_hours"] == pytest.approx(half + tuned + lost + asked)
    assert total["money"] == pytest.approx(2.5 * (half + tuned + lost + asked))


def test_whole_run_makes_every_score_table_once(planned: dict[str, Any]) -> None:
    tables = sum(table["total"]["gpu_hours"] for table in planned["score_tables"])
    own = sum(arm["own_total"]["gpu_hours"] for arm in planned["arms"])
    assert planned["whole"]["gpu_hours"] == pytest.approx(tables + own)
    assert planned["whole"]["without_hours"] == ["group", "anchor"]
    alone = sum(arm["total"]["gpu_hours"] for arm in planned["arms"])
    mira = next(each for each in planned["score_tables"] if each["name"] == "v1")
    assert alone - planned["whole"]["gpu_hours"] == pytest.approx(2 * mira["total"]["gpu_hours"])


def test_up_to_the_scores_it_is_the_recipe_of_one_arm() -> None:
    recipe, single = load_recipe(RECIPE), load_recipe(ROOT / "recipes" / "code50b.yaml")
    ends = ("run_folder", "baselines", "arms", "ablation", "plan", "eval")
    same = [name for name in {*recipe.values, *single.values} if name not in ends]
    assert {name: recipe.values[name] for name in same} == {
        name: single.values[name] for name in same
    }
    for name, value in single.values["plan"].items():
        assert recipe.values["plan"][name] == value, name
    assert recipe.mapping("arms")["mira_group"] == single.mapping("arms")["mira_group"]
    assert recipe.run_folder != single.run_folder


def test_preflight_finds_nothing_wrong_where_all_that_it_names_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**15, 0, 10**15))
    recipe, cluster = stood_in("ablation_paper.yaml example.yaml", tmp_path)
    found = preflight(load_recipe(recipe), load_cluster(cluster))
    assert [finding for finding in found if finding.level == ERROR] == []


def test_preflight_names_every_benchmark_without_data_and_plans_the_rest(tmp_path: Path) -> None:
    recipe, cluster = stood_in("ablation_paper.yaml example.yaml", tmp_path)
    data = tmp_path / "data/eval"
    lost = {
        "bigcodebench": data / "bigcodebench/bigcodebench-hard-v0.1.4.parquet",
        "livecodebench": data / "livecodebench/test6.jsonl",
        "multipl_e_sh": data / "multipl_e/humaneval-sh.jsonl",
        "bird": data / "bird/dev_databases/concerts/concerts.sqlite",
    }
    for path in lost.values():
        path.unlink()
    found = preflight(load_recipe(recipe), load_cluster(cluster))
    errors = {each.where.partition("benchmark ")[2]: each for each in found if each.level == ERROR}
    assert {name for name in errors if name} == set(lost)
    for name, path in lost.items():
        assert str(path) in errors[name].what
        assert "eval.benchmarks leaves a benchmark out" in errors[name].what
    assert not [each for each in found if "cannot be planned" in each.what]


def test_preflight_finds_what_baselines_lack(tmp_path: Path) -> None:
    recipe, cluster = stood_in("ablation_paper.yaml example.yaml", tmp_path)
    words = ["baselines.dataman.dataman_tokenizer=/gone/tokenizer.json"]
    words += ["baselines.dsir.targets.instructions.paths=[/gone/chats.jsonl]"]
    words += ["baselines.ppl.endpoints=[http://127.0.0.1:8203/v1]"]
    words += ["baselines.dataman.api_key_env=DATAMAN_KEY"]
    found = preflight(load_recipe(recipe, words), load_cluster(cluster))
    errors = [f"{each.where} {each.what}" for each in found if each.level == ERROR]
    for lacking in (
        "/gone/tokenizer.json",
        "/gone/chats.jsonl",
        "8203/v1 is on the node that runs baseline",
        "it names DATAMAN_KEY",
    ):
        assert [line for line in errors if lacking in line], lacking


def written(out: str) -> str:
    """Returns the words of a terminal for any clone: without its path, and without line ends."""
    out = out.replace(str(ROOT), "CLONE")
    return "\n".join(line.rstrip() for line in out.splitlines()) + "\n"


if __name__ == "__main__":
    for path, words in GOLDEN.items():
        told = io.StringIO()
        with redirect_stdout(told):
            main(words)
        path.write_text(written(told.getvalue()), encoding="utf-8")
