"""A small run that `mira submit` sends to a real SLURM, and looks at what becomes of it.

60 notes in parts of 6, their anchors given: ingest, anchor, score (an array, then its rest) and
aggregate. Scores come from an endpoint, whose gate a drill may close.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # OmegaConf brings it
from slurm_cluster import SlurmCluster, wait_until
from smoke_runs import Ended, assert_done, ended, mira

from mira_megatron.launchers.submissions import read_submissions
from mira_megatron.manifest import read_manifest
from mira_megatron.records import NUM_SLOTS, Anchor
from mira_megatron.rubric.anchor_files import with_version, write_anchors
from mira_megatron.rubric.rule_judge import dimension_names
from mira_megatron.shards import file_digest

NUM_RECORDS, NUM_PARTS, IN_FLIGHT = 60, 10, 2
GROUP = "text-notes"
_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class DrillRun:
    """A run folder, its recipe, and the cluster that it is sent to."""

    folder: Path
    slurm: SlurmCluster

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"

    def write(self, url: str) -> None:
        """Writes the recipe; its scores come from the endpoint at `url`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        notes = [f"# Note {number}\n\nIt says {'word ' * number}." for number in range(NUM_RECORDS)]
        raw = "".join(f"{json.dumps({'text': note})}\n" for note in notes)
        (self.folder / "notes.jsonl").write_text(raw)
        empty = {"description": None, "part": None, "cluster_size": None, "medoid": None}
        rest: dict[str, Any] = {**empty, "aliases": (), "references": (), "rubric_version": ""}
        names = dimension_names("text")[:NUM_SLOTS]
        anchors = [Anchor(anchor_id="", name=name, **rest) for name in names]
        write_anchors(self.folder / "given.jsonl", with_version("given", anchors))
        source = {"format": "jsonl", "family": "text", "group": GROUP, "fields": {"text": "text"}}
        score = {"engine": "endpoint", "model": "fake", "temperature": 0, "top_p": 1}
        values = {
            "run_folder": str(self.run_folder),
            "sources": {"notes": {**source, "paths": ["notes.jsonl"]}},
            "ingest": {"records_per_part": 6, "max_bad_fraction": 0.0},
            "teacher": {"engine": "rule_judge"},
            "score": {**score, "max_tokens": 2048, "max_in_flight": IN_FLIGHT, "endpoints": [url]},
            "scorers": {GROUP: {"anchors_path": "given.jsonl"}},
            "aggregate": {"scoring": "drill", "trim_fraction": 0.1, "min_slots": 5},
        }
        self.recipe.write_text(yaml.safe_dump(values))

    def submit(self, *, max_failures: int = 2, **settings: Any) -> dict[str, str]:
        """Returns SLURM's numbers by job, once `mira submit` has sent what is left to do."""
        cluster = {
            "name": "drill",
            "gpu": "",
            "gpus_per_node": 0,
            "cpus_per_node": 1,
            "array_cap": 1,  # one element claims all that is so little
            "requeue_signal_seconds": 60,
            "max_failures": max_failures,
            "time_limits": dict.fromkeys(("stage", "gpu", "serve", "train"), "01:00:00"),
            "environment": ["SLURM_CONF", "PYTHONPATH"],
            "commands": {"default": [sys.executable, "-m", "mira_megatron.cli"]},
            **settings,
        }
        path = self.folder / "cluster.yaml"
        path.write_text(yaml.safe_dump(cluster))
        assert_done(self.mira("submit", "--cluster", path))
        return self.numbers()

    def mira(self, command: str, *words: object) -> Ended:
        """Runs `mira` where SLURM's commands reach the cluster."""
        environment = {**self.slurm.environment, "PYTHONPATH": str(_PACKAGE), "COLUMNS": "400"}
        program = [sys.executable, "-m", "mira_megatron.cli"]
        return ended([*program, command, self.recipe, *words], **environment)

    def status(self) -> str:
        """Returns what `mira status` says."""
        result = self.mira("status")
        assert_done(result)
        return result.output

    def numbers(self) -> dict[str, str]:
        """Returns SLURM's numbers of the jobs, as they were last sent."""
        sent = {path.name: read_submissions(path) for path in self.jobs.glob("*/")}
        return {name: each[-1].job_id for name, each in sent.items() if each}

    @property
    def jobs(self) -> Path:
        return self.run_folder / "jobs"

    def failures(self, job: str) -> list[dict[str, Any]]:
        """Returns what the runner of a job wrote down, of all elements."""
        files = sorted((self.jobs / job).glob("failures-*.json"))
        return [each for path in files for each in json.loads(path.read_bytes())]

    def logs(self) -> str:
        """Returns what all jobs wrote."""
        logs = sorted(self.jobs.glob("*/log-*.txt"))
        return "\n".join(f"{path.parent.name}/{path.name}: {path.read_text()}" for path in logs)

    def wait(self, number: str, *states: str) -> None:
        """Waits until all of a job has ended in these states."""
        ending = self.slurm.wait(number)
        assert set(ending.values()) == set(states), f"{ending}\n{self.logs()}"

    def wait_for_ratings(self, number: int) -> None:
        """Waits until so many parts are scored."""
        wait_until(lambda: len(self.ratings()) >= number, self.logs)

    def ratings(self) -> dict[str, Path]:
        parts = (self.run_folder / "ratings/mira/notes").glob("part-*.parquet")
        return {part.name: part for part in sorted(parts)}

    def stamps(self) -> dict[str, int]:
        """Returns what shows that a part was written again."""
        return {name: part.stat().st_mtime_ns for name, part in self.ratings().items()}

    def owners(self) -> dict[str, int]:
        """Returns the process that is alive and has claims, by its job."""
        claims = (self.run_folder / "ratings/mira/notes").glob(".scratch/claims/part-*")
        held = [json.loads(path.read_bytes()) for path in sorted(claims)]
        alive = [each for each in held if Path(f"/proc/{each['pid']}").exists()]
        return {str(owner["job"]): int(owner["pid"]) for owner in alive}

    def is_done(self, folder: str) -> bool:
        return read_manifest(self.run_folder / folder) is not None

    def assert_scored_as(self, expected: Mapping[str, str]) -> None:
        """Fails unless ratings and scores are finished and are those of an undisturbed run."""
        assert self.is_done("record_scores/drill/notes"), self.logs()
        assert self.digests() == expected

    def digests(self) -> dict[str, str]:
        folders = ("ratings/mira/notes", "record_scores/drill/notes")
        parts = [part for name in folders for part in (self.run_folder / name).glob("*.parquet")]
        return {str(part.relative_to(self.run_folder)): file_digest(part) for part in parts}


def undisturbed(folder: Path, slurm: SlurmCluster, url: str) -> DrillRun:
    """Returns a finished run that one process made."""
    run = DrillRun(folder, slurm)
    run.write(url)
    assert_done(mira("run", run.recipe))
    return run


def anchored(run: DrillRun, folder: Path, url: str) -> DrillRun:
    """Returns a run of its own that has all that scoring needs, made from a finished one."""
    new = DrillRun(folder, run.slurm)
    new.write(url)
    for name in ("records", "anchors", ".raw_digests"):
        if (run.run_folder / name).is_dir():
            shutil.copytree(run.run_folder / name, new.run_folder / name)
    return new
