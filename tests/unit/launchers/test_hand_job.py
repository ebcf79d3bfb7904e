"""`mira job RECIPE --stage STAGE`: a stage as a job without a cluster's file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_runs import write_cluster_run
from job_runs import new_job_run

from mira_megatron.cli import main
from mira_megatron.config import Recipe
from mira_megatron.launchers.hand_job import hand_job
from mira_megatron.launchers.job_file import JobFile, recipe_digest
from mira_megatron.launchers.job_place import JobPlace


def made(
    recipe: Recipe, stage: str, only: str | None = None, place: JobPlace | None = None
) -> JobFile:
    place = JobPlace() if place is None else place
    return hand_job(recipe, ["seed=7"], stage, place, only=only, workers=3, max_failures=1)


def test_training_of_bridge_has_a_process_for_every_gpu_of_a_node(tmp_path: Path) -> None:
    recipe = write_cluster_run(tmp_path)
    job = made(recipe, "midtrain", "early", JobPlace(node=1, num_nodes=8, head="n0"))
    assert (job.kind, job.only, job.nproc_per_node) == ("train", "early", 8)
    assert (job.workers, job.max_failures, job.overrides) == (3, 1, ("seed=7",))
    assert job.recipe_digest == recipe_digest(recipe)
    assert JobFile.read(recipe.run_folder / "jobs/hand-midtrain-early/job.json") == job


def test_stage_that_is_no_such_training_runs_on_one_node(tmp_path: Path) -> None:
    recipe = new_job_run(tmp_path).recipe
    job = made(recipe, "ingest")
    assert (job.name, job.kind, job.nproc_per_node) == ("hand-ingest", "stage", 1)
    with pytest.raises(ValueError, match="ingest runs on one node, and this job has 2"):
        made(recipe, "ingest", place=JobPlace(num_nodes=2, head="n0"))


@pytest.mark.parametrize("stage", ["midtrain", "tokenize"])
def test_unit_that_the_stage_does_not_have_is_refused_before_anything_is_written(
    tmp_path: Path, stage: str
) -> None:
    recipe = write_cluster_run(tmp_path)
    with pytest.raises(ValueError, match=f"{stage} has no unit 'earl'"):
        made(recipe, stage, "earl")
    assert not (recipe.run_folder / "jobs").exists()


def test_command_runs_the_stage_and_leaves_its_job_to_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_job_run(tmp_path)
    words = ["job", str(run.recipe.path), "seed=7", "--stage", "ingest", "--only=notes"]
    assert main(words) == 2  # there is nothing to read yet
    run.write_notes()
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert main(words) == 0
    assert run.is_done
    assert main(["status", str(run.recipe.path), "seed=7"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "hand-ingest-notes" in line]
    assert "12" in row
    assert "done" in row


@pytest.mark.parametrize(
    "words", [["seed=7"], ["--only", "notes"], ["--workers", "2"], ["--max-failures", "0"]]
)
def test_what_belongs_to_a_recipe_is_refused_beside_a_job_s_file(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    job = new_job_run(tmp_path).job()
    assert main(["job", str(job.path), *words]) == 2
    assert "belongs to `mira job RECIPE --stage STAGE`" in " ".join(capsys.readouterr().err.split())
