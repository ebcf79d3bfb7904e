"""Jobs over one source of notes whose raw file a stand-in for a training may have to make first."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml  # OmegaConf brings it

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.launchers.job_file import JobFile, recipe_digest
from mira_megatron.launchers.job_place import JobPlace
from mira_megatron.launchers.job_runner import run_job
from mira_megatron.manifest import read_manifest
from mira_megatron.training.training_commands import TrainingCommands

# A training of five steps. Its checkpoint is the number of steps done; `notes.jsonl` is there, for
# the stage to take over, once it is complete. What it is told: folder, and how it is to behave.
TRAINING = """
import os, pathlib, signal, sys, time
folder, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2]
rank = int(os.environ["RANK"])
saved = folder / f"saved-{rank}"
is_told = []
signal.signal(signal.SIGTERM, lambda *_: is_told.append(1))
with (folder / "ranks").open("a") as ranks:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    ranks.write(" ".join(os.environ[name] for name in names) + "\\n")
attempts = len((folder / "ranks").read_text().splitlines())
step = int(saved.read_text()) if saved.exists() else 0
while step < 5:
    if is_told:
        sys.exit(0)  # as Bridge does
    if behaviour == "fails-twice" and step == 2 and attempts < 3:
        sys.exit(7)
    if behaviour == "stops-early" and step == 2:
        sys.exit(0)
    if behaviour == "waits" and step == 2 and attempts == 1:
        (folder / "waiting").touch()
        time.sleep(0.02)
        continue
    if behaviour == "last-fails":
        if rank == int(os.environ["WORLD_SIZE"]) - 1:
            sys.exit(9)
        time.sleep(0.02)
        continue
    step += 1
    saved.write_text(str(step))
if rank == 0:
    (folder / "notes.jsonl").write_text('{"text": "A note."}\\n')
"""


@dataclass(frozen=True, slots=True)
class JobRun:
    """A recipe over notes, and jobs for it."""

    folder: Path

    @property
    def recipe(self) -> Recipe:
        return load_recipe(self.folder / "recipe.yaml")

    def write_notes(self) -> None:
        (self.folder / "notes.jsonl").write_text('{"text": "A note."}\n')

    def job(self, stage: str = "ingest", **values: Any) -> JobFile:
        """Returns a job that is written."""
        recipe = self.recipe
        given = {
            **{"name": stage, "stage": stage, "kind": "stage", "recipe": recipe.path},
            **{"overrides": (), "recipe_digest": recipe_digest(recipe)},
            **{"run_folder": recipe.run_folder, "workers": 1},
        }
        job = JobFile(**{**given, **values})
        job.write()
        return job

    def train(self, behaviour: str = "", restart: int = 0, **values: Any) -> int:
        """Returns the exit code of an attempt at a job that trains."""
        job = self.job(kind="train", **values)
        place = JobPlace(job="7", number=7, restart=restart)
        return run_job(job.path, place, trainings=lambda *_: [self.training(behaviour)])

    def training(self, behaviour: str, num_nodes: int = 1) -> TrainingCommands:
        note = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n')"
        noted = (sys.executable, "-c", note, str(self.folder / "order"))
        complete = "import pathlib, sys; sys.exit(not pathlib.Path(sys.argv[1]).exists() and 75)"
        whole = (sys.executable, "-c", complete, str(self.folder / "notes.jsonl"))
        (self.folder / "train.py").write_text(TRAINING)
        return TrainingCommands(
            name="notes",
            num_nodes=num_nodes,
            gpus_per_node=8,
            prepare=((*noted, "prepare"),),
            train=(str(self.folder / "train.py"), str(self.folder), behaviour),
            finish=((*noted, "finish"), whole),
        )

    @property
    def is_done(self) -> bool:
        return read_manifest(self.recipe.run_folder / "records/notes") is not None

    @property
    def ranks(self) -> list[list[str]]:
        """Returns what each rank that ran was told, in the order in which they ran."""
        return [line.split() for line in (self.folder / "ranks").read_text().splitlines()]

    @property
    def order(self) -> list[str]:
        return (self.folder / "order").read_text().split()

    def reasons(self) -> list[str]:
        path = self.recipe.run_folder / "jobs/ingest/failures-0.json"
        return [each["reason"] for each in orjson.loads(path.read_bytes())]


def new_job_run(tmp_path: Path) -> JobRun:
    """Returns a recipe whose only raw file is not there yet."""
    source = {"format": "jsonl", "family": "text", "group": "text-notes"}
    raw = {"paths": [str(tmp_path / "notes.jsonl")], "fields": {"text": "text"}}
    values = {
        "run_folder": str(tmp_path / "run"),
        "sources": {"notes": {**source, **raw}},
        "ingest": {"records_per_part": 6, "max_bad_fraction": 0.0},
        "teacher": {"engine": "rule_judge"},
        "discover": {"records_per_source": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    return JobRun(tmp_path)


@contextmanager
def told_to_end_once(path: Path, number: signal.Signals) -> Iterator[None]:
    """Sends a signal to this process as soon as a file is there."""

    def tell() -> None:
        while not path.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    yield
