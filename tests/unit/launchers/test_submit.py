from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from slurm_stubs import SlurmStubs
from submitted_smoke import one_machine, smoke

from mira_megatron.config import Recipe
from mira_megatron.launchers.job_file import JobFile
from mira_megatron.launchers.job_graph import job_graph
from mira_megatron.launchers.submit import (
    Submitted,
    read_submissions,
    submit,
    write_scripts,
)


@pytest.fixture
def slurm(tmp_path: Path) -> SlurmStubs:
    return SlurmStubs.write(tmp_path / "bin")


def sent(recipe: Recipe, slurm: SlurmStubs) -> Submitted:
    jobs = job_graph(recipe, one_machine())
    return submit(jobs, recipe, ["seed=7"], one_machine(), slurm.environment)


def told(slurm: SlurmStubs) -> dict[str, list[str]]:
    """Returns what sbatch was told of each script, by the job's name."""
    lines = [json.loads(line) for line in slurm.lines("sbatch.jsonl")]
    return {Path(words[-1]).parent.name: words[:-1] for words in lines}


def test_jobs_are_sent_in_order_with_the_numbers_of_those_they_wait_for(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe = smoke(tmp_path / "run")
    submitted = sent(recipe, slurm)
    words = told(slurm)
    assert list(words) == [job.name for job in job_graph(recipe, one_machine())]
    ids = submitted.sent
    assert words["ingest"] == ["--parsable"]
    assert words["label-rest"] == [
        "--parsable",
        f"--dependency=afterok:{ids['anchor']},afterany:{ids['label']}",
    ]
    assert words["select"][1] == f"--dependency=afterok:{ids['aggregate']}:{ids['tokenize']}"
    file = JobFile.read(tmp_path / "run/jobs/score/job.json")
    assert (file.shared, file.overrides, file.recipe) == (True, ("seed=7",), recipe.path)
    assert not JobFile.read(tmp_path / "run/jobs/score-rest/job.json").shared
    (submission,) = read_submissions(tmp_path / "run/jobs/score")
    assert (submission.job_id, submission.elements) == (ids["score"], 2)
    assert submission.dependency == f"afterok:{ids['anchor']}"


def test_jobs_in_the_queue_are_kept_and_the_others_wait_for_them(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe = smoke(tmp_path / "run")
    first = sent(recipe, slurm).sent
    ended = {first[name] for name in ("label", "score-rest", "report")}
    queue = slurm.folder / "queue"
    left = [job_id for job_id in queue.read_text().split() if job_id not in ended]
    queue.write_text("\n".join([*left, "99999"]) + "\n")
    again = sent(recipe, slurm)
    # The array of labels has ended, and what it left is still to be done by the job in the queue.
    assert set(again.sent) == {"score-rest", "report"}
    assert again.kept == {name: job_id for name, job_id in first.items() if job_id not in ended}
    words = told(slurm)["score-rest"]
    assert words[1] == f"--dependency=afterok:{first['anchor']},afterany:{first['score']}"
    ids = [each.job_id for each in read_submissions(tmp_path / "run/jobs/report")]
    assert ids == [first["report"], again.sent["report"]]


def test_jobs_in_the_queue_for_another_recipe_are_named_and_nothing_is_sent(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    first = sent(smoke(tmp_path / "run"), slurm).sent
    with pytest.raises(ValueError, match=f"scancel .*{first['ingest']}"):
        sent(smoke(tmp_path / "run", "select.budget_fraction=0.4"), slurm)
    assert len(slurm.lines("sbatch.jsonl")) == len(first)


def test_failure_in_the_middle_names_script_reason_and_what_was_sent(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe = smoke(tmp_path / "run")
    (slurm.folder / "fails_at").write_text("3")
    with pytest.raises(ValueError, match="invalid account") as refused:
        sent(recipe, slurm)
    message = str(refused.value)
    assert str(tmp_path / "run/jobs/discover/script.sh") in message
    assert "ingest 101, group 102" in message
    assert "scancel 101 102" in message
    (slurm.folder / "fails_at").write_text("0")
    again = sent(recipe, slurm)
    assert again.kept == {"ingest": "101", "group": "102"}
    assert told(slurm)["discover"][1] == "--dependency=afterok:102"


def test_refused_word_in_any_script_sends_nothing(tmp_path: Path, slurm: SlurmStubs) -> None:
    recipe = replace(smoke(tmp_path / "run"), path=tmp_path / 'a"b.yaml')
    with pytest.raises(ValueError, match="cannot hold this path"):
        sent(recipe, slurm)
    assert not slurm.lines("sbatch.jsonl")


def test_machine_without_slurm_is_told_so(tmp_path: Path) -> None:
    recipe = smoke(tmp_path / "run")
    with pytest.raises(ValueError, match="squeue: no such command"):
        submit(job_graph(recipe, one_machine()), recipe, [], one_machine(), {"PATH": str(tmp_path)})


def test_scripts_by_hand_are_lines_of_shell_that_send_the_same(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe = smoke(tmp_path / "my $(touch gone) 'run'")
    jobs = job_graph(recipe, one_machine())
    lines = write_scripts(jobs, recipe, [], one_machine())
    result = subprocess.run(
        ["bash", "-euc", lines], env=slurm.environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    by_hand = told(slurm)
    assert by_hand["label-rest"][1] == "--dependency=afterok:104,afterany:105"
    assert list(by_hand) == [job.name for job in jobs]
    assert not (tmp_path / "gone").exists()


def test_damaged_submitted_json_is_refused_by_name(tmp_path: Path, slurm: SlurmStubs) -> None:
    recipe = smoke(tmp_path / "run")
    sent(recipe, slurm)
    (tmp_path / "run/jobs/ingest/submitted.json").write_text("[]")
    with pytest.raises(ValueError, match=r"ingest/submitted\.json"):
        sent(recipe, slurm)
