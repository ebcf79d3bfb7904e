"""recipes/code50b.yaml on the example cluster: the dry run of the whole graph is golden.

It is rewritten by `python tests/unit/test_code50b.py`.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from mira_megatron.cli import main
from mira_megatron.config import load_recipe
from mira_megatron.launchers.cluster import load_cluster
from mira_megatron.launchers.job_file import JobFile, recipe_digest
from mira_megatron.launchers.job_graph import job_graph
from mira_megatron.launchers.stand_ins import stand_ins

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "submit_code50b.txt"
RECIPE = ROOT / "recipes" / "code50b.yaml"
CLUSTER = ROOT / "launchers" / "clusters" / "example.yaml"
DRY_RUN = ["submit", str(RECIPE), "--cluster", str(CLUSTER), "--dry-run"]
LABELS = ROOT / "recipes" / "find_rubric.yaml"


def test_dry_run_prints_the_whole_graph_with_gpu_hours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(DRY_RUN) == 0
    assert written(capsys.readouterr().out) == GOLDEN.read_text(encoding="utf-8")


def test_dry_run_stands_in_for_models_that_are_not_here_and_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    assert main([*DRY_RUN, f"distill.base={tmp_path}"]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert "teacher.tokenizer=/models/Kimi-K2.6/tokenizer.json" in told
    assert "distill.base" not in told


def test_jobs_are_not_submitted_without_the_models_that_they_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in DRY_RUN if word != "--dry-run"]
    assert main([*words, f"run_folder={tmp_path}"]) == 2
    assert "/models/Kimi-K2.6/tokenizer.json: no such file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_scripts_are_written_without_the_models_for_the_recipe_as_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = tmp_path / "cluster.yaml"
    # Containers must see the run folder, which is elsewhere here.
    text = CLUSTER.read_text(encoding="utf-8")
    cluster.write_text(text.replace("mounts: [/data, /models, /work]", "mounts: [/]"))
    words = ["--cluster", str(cluster), "--scripts", f"run_folder={tmp_path}"]
    assert main(["submit", str(RECIPE), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = [JobFile.read(path) for path in tmp_path.glob("jobs/*/job.json")]
    assert len(files) == len(lines) > 10
    digest = recipe_digest(load_recipe(RECIPE, [f"run_folder={tmp_path}"]))
    assert {file.recipe_digest for file in files} == {digest}
    assert not any("mira-stand-in" in path.read_text() for path in tmp_path.glob("jobs/*/*.*"))


def test_example_cluster_has_a_partition_without_gpus_and_an_image_for_trainings() -> None:
    cluster = load_cluster(CLUSTER)
    with stand_ins(load_recipe(RECIPE)) as (recipe, _):
        jobs = job_graph(recipe, cluster)
    without = {job.name: job.needs.partition for job in jobs if not job.num_gpus}
    assert set(without.values()) == {"cpu"}, without
    images = {job.name: cluster.image(job.stage) for job in jobs if job.needs.kind == "train"}
    assert set(images.values()) == {"/images/mira-nemo.sqsh"}, images


def test_sources_and_sampling_are_those_of_the_recipes_it_is_made_of() -> None:
    recipe, labels = load_recipe(RECIPE), load_recipe(LABELS)
    same = ("sources", "ingest", "group", "discover", "anchor", "label")
    assert {name: recipe.values[name] for name in same} == {
        name: labels.values[name] for name in same
    }
    assert recipe.run_folder != labels.run_folder


def written(out: str) -> str:
    return "\n".join(line.rstrip() for line in out.splitlines()) + "\n"


if __name__ == "__main__":
    told = io.StringIO()
    with redirect_stdout(told):
        main(DRY_RUN)
    GOLDEN.write_text(written(told.getvalue()), encoding="utf-8")
