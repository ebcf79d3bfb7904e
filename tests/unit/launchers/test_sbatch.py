"""The golden scripts are rewritten by `python tests/unit/launchers/test_sbatch.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slurm_stubs import SlurmStubs
from submitted_smoke import CLUSTERS, one_machine

from mira_megatron.launchers.cluster import Cluster, load_cluster
from mira_megatron.launchers.job_file import JobFile, Server
from mira_megatron.launchers.job_graph import PlannedJob
from mira_megatron.launchers.sbatch import NOT_FINISHED, sbatch_script
from mira_megatron.launchers.stage_needs import StageNeeds

GOLDEN = Path(__file__).parents[2] / "golden"
SERVER = Server(commands=(("serve", "{head}"),), health_urls=("http://127.0.0.1:8000/health",))
HERE = Path("/work/clone")


def planned(stage: str, **changes: Any) -> PlannedJob:
    needs = StageNeeds(
        kind="stage", nodes=1, gpus=0, cpus=16, time="08:00:00", partition="gpu", server=None
    )
    job = PlannedJob(
        name=stage,
        stage=stage,
        only=None,
        num_units=1,
        needs=needs,
        elements=0,
        is_rest=False,
        after_ok=(),
        after_any=(),
    )
    return replace(job, **changes)


def filed(job: PlannedJob, run_folder: Path, recipe: Path) -> JobFile:
    return JobFile(
        name=job.name,
        stage=job.stage,
        kind=job.needs.kind,
        recipe=recipe,
        overrides=(),
        recipe_digest="0" * 64,
        run_folder=run_folder,
        workers=job.needs.cpus,
        server=job.needs.server,
    )


def golden_scripts() -> dict[str, str]:
    """Returns the scripts that are golden, by file name."""
    pyxis = load_cluster(CLUSTERS / "example.yaml")
    apptainer = replace(pyxis, container_runtime="apptainer", qos="long", reservation="res-1")
    bare = planned("x").needs
    train = replace(bare, kind="train", nodes=8, gpus=8, cpus=128, time="24:00:00")
    jobs = {
        "array": (planned("score", elements=256, after_ok=("distill",)), pyxis),
        "train": (planned("midtrain", name="midtrain-a", needs=train, after_ok=("blend",)), pyxis),
        "apptainer": (planned("distill", needs=replace(train, nodes=1)), apptainer),
        "bare": (planned("ingest"), one_machine()),
    }
    folder, recipe = Path("/work/runs/code50b"), HERE / "recipes/code50b.yaml"
    return {
        f"sbatch_{name}.sh": sbatch_script(job, filed(job, folder, recipe), cluster, HERE)
        for name, (job, cluster) in jobs.items()
    }


@pytest.mark.parametrize("name", ["array", "train", "apptainer", "bare"])
def test_script_is_the_golden_one(name: str) -> None:
    file = f"sbatch_{name}.sh"
    assert golden_scripts()[file] == (GOLDEN / file).read_text(encoding="utf-8")


def script_of(
    tmp_path: Path, run_folder: Path, cluster: Cluster | None = None, **changes: Any
) -> str:
    job = planned("score", **changes)
    file = filed(job, run_folder, run_folder / "recipe.yaml")
    return sbatch_script(job, file, cluster or one_machine(), tmp_path)


def start(tmp_path: Path, text: str, srun: str = "", **environment: str) -> subprocess.Popen[str]:
    """Returns the script as it runs under bash, with an srun that does what `srun` says."""
    stubs = SlurmStubs.write(tmp_path / "bin") if not (tmp_path / "bin").exists() else None
    stubs = stubs or SlurmStubs(tmp_path / "bin")
    (stubs.folder / "srun.py").write_text(srun)
    path = tmp_path / "script.sh"
    path.write_text(text)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-[1-2]", **environment}
    return subprocess.Popen(
        ["bash", path],
        env={**stubs.environment, **slurm},
        cwd=tmp_path / "bin",
        stderr=subprocess.PIPE,
        text=True,
    )


def requeued(tmp_path: Path) -> list[str]:
    told = [json.loads(line) for line in SlurmStubs(tmp_path / "bin").lines("scontrol.jsonl")]
    return [words[1] for words in told if words[0] == "requeue"]


@pytest.mark.parametrize(
    ("dependency", "state", "code"),
    [
        ("afterok:3,afterany:5", "CANCELLED", 2),
        ("afterany:5_*(unfulfilled)", "CANCELLED", 2),
        ("afterany:5", "FAILED", 0),
        ("afterok:3", "CANCELLED", 0),
        ("", "CANCELLED", 0),
    ],
)
def test_rest_of_a_cancelled_array_is_not_done(
    tmp_path: Path, dependency: str, state: str, code: int
) -> None:
    stubs = SlurmStubs.write(tmp_path / "bin")
    # More than a pipe holds.
    others = f"JobId=6 ArrayJobId=5 JobState=COMPLETED {'x' * 100}\n" * 2_000
    (stubs.folder / "state").write_text(f"JobId=5 JobState={state} Reason=None\n{others}")
    text = script_of(tmp_path, tmp_path / "run", name="score-rest", is_rest=True)
    assert start(tmp_path, text, SLURM_JOB_DEPENDENCY=dependency).wait() == code
    shown = [json.loads(line)[-2] for line in stubs.lines("scontrol.jsonl")][1:]
    assert shown == (["5"] if "afterany" in dependency else [])
    assert (stubs.folder / "srun.json").exists() == (code == 0)


def test_job_that_was_sent_from_an_element_is_none_itself(tmp_path: Path) -> None:
    inherited = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}
    text = script_of(tmp_path, tmp_path / "run")
    srun = f"sys.exit({NOT_FINISHED} if 'SLURM_ARRAY_TASK_ID' not in os.environ else 1)"
    assert start(tmp_path, text, srun, **inherited).wait() == NOT_FINISHED
    assert requeued(tmp_path) == ["7"]


WORDS = st.text(st.characters(whitelist_categories=["L", "N", "P", "S", "Zs"]), min_size=1)
# A path cannot hold the first two, and the options of a script none of the others.
NAMES = WORDS.map(lambda word: "".join(set(word) - set('/\0"\\'))).filter(str.isprintable)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8, deadline=None
)
@given(name=NAMES, word=WORDS.filter(str.isprintable))
def test_words_of_users_reach_srun_as_they_were_given(tmp_path: Path, name: str, word: str) -> None:
    run_folder = tmp_path / f"$(touch gone) `touch gone` ';touch gone' {name[:40]}"
    cluster = one_machine(commands={"score": (word, "$(touch gone)")})
    ran = start(tmp_path, script_of(tmp_path, run_folder, cluster))
    assert ran.wait() == 0, ran.communicate()[1]
    folder, words, head = json.loads((tmp_path / "bin/srun.json").read_text())
    assert words == [
        *("--export=ALL", "--kill-on-bad-exit=0", "--wait=120", word, "$(touch gone)"),
        *("job", f"{run_folder}/jobs/score/job.json"),
    ]
    assert (folder, head) == (str(tmp_path), "node-1")
    assert not list(tmp_path.rglob("gone"))


def test_container_is_told_its_image_and_mounts_as_they_were_given(tmp_path: Path) -> None:
    image = "nvcr.io#nvidia/nemo:26.02 $(touch gone)"
    changes: dict[str, Any] = {"containers": {"default": image}, "environment": ("A", "B")}
    mounts = (str(tmp_path), "/da ta:/data:ro")
    pyxis = one_machine(container_runtime="pyxis", mounts=mounts, **changes)
    assert start(tmp_path, script_of(tmp_path, tmp_path / "run", pyxis)).wait() == 0
    _, words, _ = json.loads((tmp_path / "bin/srun.json").read_text())
    assert words[3:7] == [
        f"--container-image={image}",
        f"--container-workdir={tmp_path}",
        f"--container-mounts={tmp_path}:{tmp_path},/da ta:/data:ro",
        "--container-env=A,B",
    ]
    apptainer = replace(pyxis, container_runtime="apptainer")
    assert start(tmp_path, script_of(tmp_path, tmp_path / "run", apptainer)).wait() == 0
    _, words, _ = json.loads((tmp_path / "bin/srun.json").read_text())
    assert words[3:-3] == [
        *("apptainer", "exec", "--pwd", str(tmp_path)),
        *("--bind", str(tmp_path), "--bind", "/da ta:/data:ro", image),
    ]


@pytest.mark.parametrize("name", ['a"b', "a\nb", "a\\b", "a\tb", "a\x1bb"])
def test_path_that_the_options_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot hold this path"):
        script_of(tmp_path, tmp_path / name)


def test_path_that_no_mount_shows_at_the_same_place_is_refused(tmp_path: Path) -> None:
    images = {"default": "/image"}
    for mounts in ((), ("/other",), (f"{tmp_path}:/elsewhere",)):
        cluster = one_machine(container_runtime="pyxis", containers=images, mounts=mounts)
        with pytest.raises(ValueError, match="`mounts` must show it at the same path"):
            script_of(tmp_path, tmp_path / "run", cluster)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_exit_code_of_the_job_is_that_of_the_script(tmp_path: Path, code: int) -> None:
    text = script_of(tmp_path, tmp_path / "run")
    assert start(tmp_path, text, f"sys.exit({code})").wait() == code
    assert not requeued(tmp_path)


def test_job_that_is_not_finished_goes_back_into_the_queue(tmp_path: Path) -> None:
    text = script_of(tmp_path, tmp_path / "run")
    assert start(tmp_path, text, f"sys.exit({NOT_FINISHED})").wait() == NOT_FINISHED
    element = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}
    text = script_of(tmp_path, tmp_path / "run", elements=4)
    assert start(tmp_path, text, f"sys.exit({NOT_FINISHED})", **element).wait() == NOT_FINISHED
    assert requeued(tmp_path) == ["7", "5_3"]


def test_job_that_is_being_cancelled_stays_out_of_the_queue(tmp_path: Path) -> None:
    stubs = SlurmStubs.write(tmp_path / "bin")
    (stubs.folder / "state").write_text("JobId=7 JobState=CANCELLED Reason=None")
    text = script_of(tmp_path, tmp_path / "run")
    assert start(tmp_path, text, f"sys.exit({NOT_FINISHED})").wait() == NOT_FINISHED
    assert not requeued(tmp_path)


# An srun that hands on SIGUSR1 as `mira job` takes it: it saves for a moment, and ends.
SAVES = f"""
import signal, time
def stop(number, frame):
    (folder / "signals").open("a").write("1")
    time.sleep(0.3)
    sys.exit({NOT_FINISHED})
signal.signal(signal.SIGUSR1, stop)
(folder / "ready").touch()
time.sleep(60)
"""
DIES = """
import time
(folder / "ready").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("srun", [SAVES, DIES], ids=["saves", "was_only_starting"])
def test_signal_reaches_the_job_whose_end_is_awaited(
    tmp_path: Path, number: signal.Signals, srun: str
) -> None:
    ran = start(tmp_path, script_of(tmp_path, tmp_path / "run"), srun)
    end = time.monotonic() + 30
    while not (tmp_path / "bin/ready").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    ran.send_signal(number)
    if srun is SAVES:
        time.sleep(0.1)
        os.kill(ran.pid, number)  # again, while it saves
    assert ran.wait() == NOT_FINISHED
    assert requeued(tmp_path) == ["7"]


if __name__ == "__main__":
    for name, text in golden_scripts().items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
    sys.exit()
