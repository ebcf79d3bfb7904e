from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from slurm_stubs import SlurmStubs
from submitted_smoke import one_machine, smoke

from mira_megatron.config import Recipe
from mira_megatron.file_lock import held_lock
from mira_megatron.launchers.job_file import JobFile
from mira_megatron.launchers.job_graph import job_graph
from mira_megatron.launchers.submissions import note_started, read_submissions, sent_by_hand
from mira_megatron.launchers.submit import Submitted, submit, write_scripts


@pytest.fixture
def slurm(tmp_path: Path) -> SlurmStubs:
    return SlurmStubs.write(tmp_path / "bin")


def sent(recipe: Recipe, slurm: SlurmStubs, **variables: str) -> Submitted:
    jobs = job_graph(recipe, one_machine())
    environment = {**slurm.environment, **variables}
    return submit(jobs, recipe, ["seed=7"], one_machine(), environment)


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
    slurm.change_queue(*ended, running=tuple(set(first.values()) - ended))
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
    lines = write_scripts(jobs, recipe, [], one_machine(), slurm.environment)
    result = subprocess.run(
        ["bash", "-euc", lines], env=slurm.environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    by_hand = told(slurm)
    assert by_hand["label-rest"][1] == "--dependency=afterok:104,afterany:105"
    assert list(by_hand) == [job.name for job in jobs]
    assert not (tmp_path / "gone").exists()


def test_jobs_that_wait_for_one_that_is_gone_are_cancelled_and_sent_anew(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe = smoke(tmp_path / "run")
    first = sent(recipe, slurm).sent
    slurm.change_queue(first["tokenize"], running=(first["ingest"],))
    again = sent(recipe, slurm)
    dead = {
        *("tokenize", "select", "sensitivity", "blend", "midtrain-mira_group", "instruct-data"),
        *("instruct-sft-mira_group", "report"),
    }
    assert set(again.sent) == dead
    assert again.kept == {name: job_id for name, job_id in first.items() if name not in dead}
    assert slurm.queue().keys() == {*again.kept.values(), *again.sent.values()}
    assert told(slurm)["select"][1].endswith(f"{first['aggregate']}:{again.sent['tokenize']}")


def test_job_whose_last_dependency_is_gone_is_sent_anew_though_the_graph_has_another(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe = smoke(tmp_path / "run")
    first = sent(recipe, slurm).sent
    path = tmp_path / "run/jobs/blend/submitted.json"
    path.write_text(path.read_text().replace(first["select"], "99"))
    again = sent(recipe, slurm)
    assert "blend" in again.sent
    assert "select" in again.kept
    assert "report" in again.sent


def test_job_is_sent_anew_with_what_it_reads_though_it_did_not_wait_for_that(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe = smoke(tmp_path / "run")
    first = sent(recipe, slurm).sent
    path = tmp_path / "run/jobs/blend/submitted.json"
    path.write_text(path.read_text().replace(f"afterok:{first['select']}", ""))
    slurm.change_queue(first["select"])
    assert {"select", "blend"} <= sent(recipe, slurm).sent.keys()


def test_rest_that_waits_for_an_array_that_is_gone_is_sent_anew_with_the_array(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe = smoke(tmp_path / "run")
    first = sent(recipe, slurm).sent
    slurm.change_queue(first["score"])
    again = sent(recipe, slurm).sent
    assert {"score", "score-rest", "aggregate"} <= again.keys()
    assert "ingest" not in again
    assert first["score-rest"] not in slurm.queue()


def test_rest_waits_for_an_array_that_is_still_at_work_on_the_last_part(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe = smoke(tmp_path / "run")
    first = sent(recipe, slurm).sent
    slurm.change_queue(first["score-rest"], running=(first["score"],))
    # With one part left the graph has no array.
    jobs = [
        replace(job, after_any=()) if job.name == "score-rest" else job
        for job in job_graph(recipe, one_machine())
        if job.name != "score"
    ]
    submit(jobs, recipe, ["seed=7"], one_machine(), slurm.environment)
    assert told(slurm)["score-rest"][1].endswith(f",afterany:{first['score']}")
    assert first["score"] in slurm.queue()


def test_variables_of_the_caller_change_neither_what_is_seen_nor_what_is_sent(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe = smoke(tmp_path / "run")
    variables = {"SQUEUE_STATES": "RUNNING", "SBATCH_EXPORT": "ALL", "SLURM_ARRAY_TASK_ID": "3"}
    sent(recipe, slurm, **variables, SLURM_CONF="/etc/slurm.conf")
    assert not sent(recipe, slurm, **variables).sent
    assert set(slurm.lines("sbatch_environment")[0].split("SLURM_CONF")) == {""}


def test_scripts_are_not_rewritten_under_jobs_in_the_queue(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe, changed = (
        smoke(tmp_path / "run", *words) for words in ((), ("select.budget_fraction=0.4",))
    )
    jobs = job_graph(recipe, one_machine())
    first = sent(recipe, slurm).sent
    before = (tmp_path / "run/jobs/select/job.json").read_bytes()
    with pytest.raises(ValueError, match=f"scancel .*{first['ingest']}"):
        write_scripts(jobs, changed, [], one_machine(), slurm.environment)
    assert (tmp_path / "run/jobs/select/job.json").read_bytes() == before
    slurm.change_queue(first["report"])
    (line,) = write_scripts(jobs, recipe, [], one_machine(), slurm.environment).splitlines()
    assert "jobs/report/script.sh" in line
    assert f":{first['instruct-sft-mira_group']}" in line
    # Without SLURM there is no queue to look at.
    lines = write_scripts(jobs, changed, [], one_machine(), {"PATH": str(tmp_path)})
    assert len(lines.splitlines()) == len(jobs)


def test_scripts_are_not_written_beside_another_submit(tmp_path: Path, slurm: SlurmStubs) -> None:
    recipe = smoke(tmp_path / "run")
    lock = tmp_path / "run/jobs/.lock"
    with (
        held_lock(lock, "held"),
        pytest.raises(ValueError, match="another `mira submit` is at work"),
    ):
        write_scripts(
            job_graph(recipe, one_machine()), recipe, [], one_machine(), slurm.environment
        )


def test_jobs_sent_by_hand_are_in_the_queue_and_not_sent_twice(
    tmp_path: Path, slurm: SlurmStubs
) -> None:
    recipe = smoke(tmp_path / "run of mine")
    jobs = job_graph(recipe, one_machine())
    lines = write_scripts(jobs, recipe, [], one_machine(), slurm.environment)
    subprocess.run(["bash", "-euc", lines], env=slurm.environment, check=True)
    folder = tmp_path / "run of mine/jobs/score"
    assert not read_submissions(folder)
    again = sent(recipe, slurm)
    assert (len(again.kept), again.sent) == (len(jobs), {})
    # Once it runs it writes that down itself, however many elements there are.
    for element in ("0", "1"):
        job = {"SLURM_ARRAY_JOB_ID": again.kept["score"], "SLURM_ARRAY_TASK_ID": element}
        note_started(folder, {**job, "SLURM_JOB_ID": f"99{element}", "SLURM_ARRAY_TASK_COUNT": "2"})
    (noted,) = read_submissions(folder)
    assert (noted.job_id, noted.elements) == (again.kept["score"], 2)


def test_job_outside_of_slurm_is_not_noted(tmp_path: Path) -> None:
    note_started(tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_jobs_sent_by_hand_are_known_where_there_is_a_squeue(
    tmp_path: Path, slurm: SlurmStubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = smoke(tmp_path / "run")
    first = sent(recipe, slurm).sent
    (tmp_path / "run/jobs/ingest/submitted.json").unlink()
    monkeypatch.setenv("PATH", str(slurm.folder))
    assert sent_by_hand(tmp_path / "run") == {"ingest": first["ingest"]}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sent_by_hand(tmp_path / "run") == {}


def test_damaged_submitted_json_is_refused_by_name(tmp_path: Path, slurm: SlurmStubs) -> None:
    recipe = smoke(tmp_path / "run")
    sent(recipe, slurm)
    (tmp_path / "run/jobs/ingest/submitted.json").write_text("[]")
    with pytest.raises(ValueError, match=r"ingest/submitted\.json"):
        sent(recipe, slurm)
