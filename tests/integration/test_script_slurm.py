"""The rendered script on a real SLURM: signals, the way back into the queue, and cancelling.

In place of `mira job` runs a program that notes its attempts and ends as it is told.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from marked_processes import MARK
from slurm_cluster import SlurmCluster, wait_until

from mira_megatron.launchers.cluster import load_cluster
from mira_megatron.launchers.job_file import JobFile
from mira_megatron.launchers.job_graph import PlannedJob
from mira_megatron.launchers.sbatch import sbatch_script, sbatch_words
from mira_megatron.launchers.stage_needs import StageNeeds

pytestmark = pytest.mark.integration

ONE_MACHINE = Path(__file__).parents[2] / "launchers" / "clusters" / "one_machine.yaml"
PATH = f"{os.environ['PATH']}:/usr/sbin"
# Ends with 75 where it is told to stop, else with what `exits` says of this attempt; "wait" waits.
PROGRAM = """\
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[-1]).parent
attempt = int(os.environ.get("SLURM_RESTART_COUNT", 0))
def stop(number, frame):
    time.sleep(0.5)
    (folder / f"saved-{attempt}").touch()
    sys.exit(75)
signal.signal(signal.SIGUSR1, stop)
signal.signal(signal.SIGTERM, stop)
(folder / f"began-{attempt}").write_text(os.environ["MIRA_HEAD_NODE"])
end = (folder / "exits").read_text().split()[attempt]
while end == "wait":
    time.sleep(0.05)
sys.exit(int(end))
"""


class Sent:
    """A job that was sent."""

    def __init__(self, slurm: SlurmCluster, folder: Path, exits: str) -> None:
        self.slurm = slurm
        self.folder = folder / "run $(touch gone) 50%" / "jobs" / "score"
        self.folder.mkdir(parents=True)
        (self.folder / "exits").write_text(exits)
        (folder / "program.py").write_text(PROGRAM)
        cluster = replace(
            load_cluster(ONE_MACHINE),
            commands={"default": (sys.executable, str(folder / "program.py"))},
            environment=("SLURM_CONF", MARK),
        )
        needs = StageNeeds(
            kind="stage", nodes=1, gpus=0, cpus=1, time="00:10:00", partition="", server=None
        )
        job = PlannedJob(
            name="score",
            stage="score",
            only=None,
            num_units=1,
            needs=needs,
            elements=0,
            is_rest=False,
            after_ok=(),
            after_any=(),
        )
        file = JobFile(
            name="score",
            stage="score",
            kind="stage",
            recipe=folder / "recipe.yaml",
            overrides=(),
            recipe_digest="0" * 64,
            run_folder=self.folder.parents[1],
            workers=1,
        )
        script = self.folder / "script.sh"
        script.write_text(sbatch_script(job, file, cluster, folder))
        words = sbatch_words(script, job, {})
        self.number = slurm.command(*words, PATH=PATH).strip()

    def wait_for(self, name: str) -> None:
        """Waits for a file that the program writes; what was put back is let go on at once."""
        wait_until(
            lambda: (self.folder / name).exists(),
            lambda: f"no {name}: {self.slurm.jobs(self.number)}\n{self.log()}",
            is_over=lambda: self.slurm.has_ended(self.number),
            seconds=120,
        )

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("log-*"))

    def made(self) -> set[str]:
        return {path.name for path in self.folder.glob("*-[0-9]")}


def state(sent: Sent) -> str:
    return sent.slurm.jobs(sent.number)[sent.number].state


def test_job_that_is_not_finished_runs_again_and_ends_well(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    sent = Sent(slurm, tmp_path, "75 0")
    assert sent.slurm.wait(sent.number) == {sent.number: "COMPLETED"}, sent.log()
    assert sent.made() == {"began-0", "began-1"}
    assert (sent.folder / "began-1").read_text() == slurm.node
    (log,) = sent.folder.glob("log-*")  # both attempts in one, under the name that was asked for
    assert log.name == f"log-{sent.number}.txt"
    assert not list(tmp_path.rglob("gone"))


def test_signal_before_the_limit_is_heeded_and_the_job_goes_on_later(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    sent = Sent(slurm, tmp_path, "wait 0")
    sent.wait_for("began-0")
    slurm.command("scancel", "--batch", "--signal=USR1", sent.number)
    sent.wait_for("saved-0")
    assert slurm.wait(sent.number) == {sent.number: "COMPLETED"}, sent.log()
    assert sent.made() == {"began-0", "saved-0", "began-1"}


def test_job_that_is_cancelled_saves_and_does_not_come_back(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    sent = Sent(slurm, tmp_path, "wait 0")
    sent.wait_for("began-0")
    slurm.command("scancel", sent.number)
    assert slurm.wait(sent.number) == {sent.number: "CANCELLED"}, sent.log()
    assert sent.made() == {"began-0", "saved-0"}


@pytest.mark.parametrize("code", [1, 2])
def test_job_that_failed_for_good_stays_failed(
    slurm: SlurmCluster, tmp_path: Path, code: int
) -> None:
    sent = Sent(slurm, tmp_path, f"{code} 0")
    assert slurm.wait(sent.number) == {sent.number: "FAILED"}
    assert slurm.jobs(sent.number)[sent.number].exit_code == code
    assert sent.made() == {"began-0"}
