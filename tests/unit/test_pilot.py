"""recipes/pilot.yaml on one node of GPUs: what it runs, and what it takes."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from stood_in_recipes import stood_in

from mira_megatron.cli import main
from mira_megatron.config import load_recipe
from mira_megatron.doctor.finding import ERROR
from mira_megatron.doctor.preflight import preflight
from mira_megatron.eval.suite import load_suite
from mira_megatron.launchers.cluster import load_cluster
from mira_megatron.launchers.job_graph import job_graph
from mira_megatron.launchers.stand_ins import stand_ins

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "pilot.yaml"
CLUSTER = ROOT / "launchers" / "clusters" / "one_node.yaml"
SEEDS = (1234, 1235, 1236)
Usage = namedtuple("Usage", "total used free")  # as shutil.disk_usage gives it


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", str(RECIPE), "--json", *words]) == 0
    arms: dict[str, Any] = json.loads(capsys.readouterr().out)["arms"]
    return arms


def test_whole_pilot_takes_less_than_a_day_on_a_node(capsys: pytest.CaptureFixture[str]) -> None:
    costs = planned(capsys)
    assert costs["num_gpus"] == 8
    assert 8 < costs["whole"]["gpu_hours"] / 8 < 24
    recipe = load_recipe(RECIPE)
    assert len(recipe.mapping("sources")) == 3
    sizes = recipe.values["plan"]
    assert sizes["num_records"] * sizes["tokens_per_record"] <= 1e9


def test_arms_differ_in_their_scores_alone(capsys: pytest.CaptureFixture[str]) -> None:
    by_name = {arm["name"]: arm for arm in planned(capsys)["arms"]}
    assert by_name["random"]["own_total"] == by_name["mira_group"]["own_total"]
    assert by_name["random"]["shared_total"]["gpu_hours"] == 0
    midtrain = by_name["random"]["own"][0]
    # 1,543,714,304 parameters, half a billion tokens, three seeds.
    hours = 3 * 6 * 1_543_714_304 * 5e8 / (989e12 * 0.4) / 3600
    assert (midtrain["num_models"], midtrain["gpu_hours"]) == (3, pytest.approx(hours))


def test_every_job_fits_the_node() -> None:
    cluster = load_cluster(CLUSTER)
    with stand_ins(load_recipe(RECIPE)) as (recipe, _):
        jobs = job_graph(recipe, cluster)
    assert {job.needs.nodes for job in jobs} == {1}
    assert max(job.num_gpus for job in jobs) == 8
    trained = [job.only for job in jobs if job.stage == "midtrain"]
    later = [f".seed{seed}" for seed in SEEDS[1:]]
    assert trained == [f"{arm}{end}" for arm in ("mira_group", "random") for end in ("", *later)]
    read = {job.needs.gpus for job in jobs if job.stage == "held-out"}
    assert read == {1}  # what was trained on GPUs is not read on CPUs
    compared = next(job for job in jobs if job.stage == "ablation")
    assert compared.after_ok == ()  # it tells of the arms that are whole
    read_by_it = ("held-out", "eval", "contamination")
    assert sorted(compared.after_any) == sorted(job.name for job in jobs if job.stage in read_by_it)


@pytest.mark.parametrize("cluster", ["one_node.yaml", "example.yaml"])
def test_servers_listen_where_they_are_waited_for(cluster: str) -> None:
    for stage, server in load_cluster(CLUSTER.parent / cluster).servers.items():
        listened = [words[words.index("--port") + 1] for words in server.commands]
        waited = [str(urlsplit(url).port) for url in server.health_urls]
        assert listened == waited, stage


def test_suite_is_the_paper_s_mbpp(tmp_path: Path) -> None:
    suites = ROOT / "eval" / "suites"
    pilot, paper = (load_suite(suites / name, tmp_path) for name in ("pilot.yaml", "mira9.yaml"))
    assert dict(pilot.entries) == {"mbpp": paper.entries["mbpp"]}
    own, theirs = pilot.sampling["greedy"], paper.sampling["greedy"]
    assert (own.temperature, own.num_samples) == (theirs.temperature, theirs.num_samples)


DRY_RUN = ["submit", "--cluster", str(CLUSTER), "--dry-run"]


def test_every_model_is_evaluated_on_one_gpu_where_vllm_is() -> None:
    cluster = load_cluster(CLUSTER)
    with stand_ins(load_recipe(RECIPE)) as (recipe, _):
        jobs = [job for job in job_graph(recipe, cluster) if job.stage == "eval"]
    assert len(jobs) == 6
    assert {job.num_gpus for job in jobs} == {1}
    assert [job.after_ok for job in jobs] == [(f"instruct-sft-{job.name[5:]}",) for job in jobs]
    assert cluster.command("eval") == cluster.command("score")


def test_dry_run_says_which_benchmarks_lack_their_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*DRY_RUN, str(RECIPE)]) == 0
    assert "eval.data_folder=/data/eval (data of mbpp)" in capsys.readouterr().out
    recipe, _ = stood_in("pilot.yaml one_node.yaml", tmp_path)
    assert main([*DRY_RUN, str(recipe)]) == 0
    assert "Not on this machine" not in capsys.readouterr().out


def test_jobs_are_not_submitted_without_the_data_of_a_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, cluster = stood_in("pilot.yaml one_node.yaml", tmp_path)
    data = tmp_path / "data/eval/mbpp_plus/MbppPlus-v0.2.0.jsonl"
    data.unlink()
    assert main(["submit", str(recipe), "--cluster", str(cluster)]) == 2
    told = capsys.readouterr().err
    assert f"{data}: the data file of mbpp is not there" in told
    assert "the folder is eval.data_folder" in told
    assert not (tmp_path / "work/runs").exists()


def test_preflight_finds_nothing_wrong_where_all_that_it_names_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**15, 0, 10**15))
    recipe, cluster = stood_in("pilot.yaml one_node.yaml", tmp_path)
    found = preflight(load_recipe(recipe), load_cluster(cluster))
    assert [finding for finding in found if finding.level == ERROR] == []
    # Two arms, three seeds: 3 checkpoints of 14 bytes a parameter, base and export of 2.
    room = f"6 x checkpoints of midtrain {6 * 1_543_714_304 * 46 / 1e9:,.1f} GB"
    assert [finding for finding in found if room in finding.what]
    short = load_recipe(recipe, ["blend.sequence_length=8192"])
    found = preflight(short, load_cluster(cluster))
    assert [each for each in found if each.level == ERROR and "8,192" in each.what]
