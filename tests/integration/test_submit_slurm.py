"""`mira submit` on a real SLURM: a whole recipe as jobs that wait for each other."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml
from marked_processes import MARK
from slurm_cluster import SlurmCluster, wait_until
from smoke_runs import ARM, SMALL, SMOKE, STAGES, differences, files

pytestmark = pytest.mark.integration

ONE_MACHINE = Path(__file__).parents[2] / "launchers" / "clusters" / "one_machine.yaml"
# `mira`, as an activated environment has it on PATH.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
SECONDS = 900


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    """The example of one machine, with what the test's daemons and imports need besides."""
    values = yaml.safe_load(ONE_MACHINE.read_text())
    # OpenBLAS picks kernels by the processor, and is told here which, where a machine tells it.
    values["environment"] += [MARK, "OPENBLAS_CORETYPE", "PYTHONPATH"]
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def submit(slurm: SlurmCluster, cluster_file: Path, run_folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "mira_megatron.cli", "submit", SMOKE, *SMALL]
    return slurm.command(
        *(*command, f"run_folder={run_folder}", *words, "--cluster", cluster_file), PATH=PATH
    )


def job_ids(run_folder: Path) -> dict[str, list[str]]:
    """Returns SLURM's numbers of every job of a run, by name."""
    found = sorted((run_folder / "jobs").glob("*/submitted.json"))
    return {
        path.parent.name: [each["job_id"] for each in json.loads(path.read_text())["submissions"]]
        for path in found
    }


def logs(run_folder: Path) -> str:
    paths = sorted((run_folder / "jobs").glob("*/log-*.txt"))
    return "\n".join(f"{path.parent.name}: {path.read_text()[-1500:]}" for path in paths)


def wait_for_all(slurm: SlurmCluster, run_folder: Path) -> dict[str, set[str]]:
    """Returns the states in which every job's last submission ended, by name."""
    last = {name: ids[-1] for name, ids in job_ids(run_folder).items()}

    def are_over() -> bool:
        return not slurm.command("squeue", "--noheader").strip()

    def where() -> str:
        return f"{slurm.command('squeue')}\n{logs(run_folder)}"

    wait_until(are_over, where, seconds=SECONDS)
    return {name: set(slurm.states(job_id).values()) for name, job_id in last.items()}


def test_recipe_is_submitted_whole_and_ends_as_one_command_does(
    slurm: SlurmCluster, cluster_file: Path, finished_run: Path, tmp_path: Path
) -> None:
    run_folder = tmp_path / "run $(touch gone) 'of' 50%j"
    told = submit(slurm, cluster_file, run_folder)
    assert "score-rest: submitted as job" in told
    again = submit(slurm, cluster_file, run_folder)  # while they wait and run
    assert "submitted as" not in again
    assert again.count(", kept") > len(STAGES) / 2
    states = wait_for_all(slurm, run_folder)
    assert set().union(*states.values()) == {"COMPLETED"}, f"{states}\n{logs(run_folder)}"
    assert {f"midtrain-{ARM}", "label", "label-rest", "report"} <= set(states)
    assert all(len(ids) == 1 for ids in job_ids(run_folder).values())
    assert not list(tmp_path.rglob("gone"))
    # Element and array both write their own logs, where job.json lies.
    assert len(list((run_folder / "jobs" / "score").glob("log-*_[01].txt"))) == 2
    made = {name for name in differences(finished_run, run_folder) if not name.startswith("jobs")}
    assert not made, made
    assert "Every stage of this recipe is done" in submit(slurm, cluster_file, run_folder)
    assert files(run_folder)
