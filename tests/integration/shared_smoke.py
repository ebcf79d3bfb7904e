"""The smoke recipe's 300 records in 15 parts, to be scored by several workers at once."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoke_runs import SMOKE, assert_done, mira

from mira_megatron import layout
from mira_megatron.shards import file_digest

SOURCES = ("modules", "questions", "traces")
NUM_RECORDS = 300
NUM_PARTS = 15
IN_FLIGHT = 4  # of each worker
NOBODY = "http://127.0.0.1:9/v1"


def smoke_settings(run_folder: Path) -> list[str]:
    """Returns what all commands on such a run are told besides the recipe."""
    return [f"run_folder={run_folder}", "ingest.records_per_part=20"]


def asks(url: str = NOBODY) -> str:
    """Returns the setting by which an endpoint is asked in place of the rule judge."""
    return (
        "score={engine: endpoint, model: fake, temperature: 0, top_p: 1, max_tokens: 2048, "
        f"max_in_flight: {IN_FLIGHT}, endpoints: ['{url}']}}"
    )


@dataclass(frozen=True, slots=True)
class SharedSmoke:
    """A run whose records are to be scored, and what its commands are told."""

    folder: Path
    scorer: str  # setting of the section `score`, or a harmless one

    @classmethod
    def copy(cls, anchored: Path, folder: Path, scorer: str = "seed=7") -> SharedSmoke:
        """Returns a run of its own, made from one that has its anchors."""
        shutil.copytree(anchored, folder)
        return cls(folder, scorer)

    @property
    def words(self) -> list[str]:
        """Returns the recipe with its settings."""
        return [str(SMOKE), *smoke_settings(self.folder), self.scorer]

    @property
    def missing(self) -> str:
        """Returns what `mira score --missing` says."""
        result = mira("score", *self.words, "--missing")
        assert_done(result)
        return result.output

    def ratings(self) -> dict[str, Path]:
        """Returns the parts that are there, by their names in the run."""
        parts = (self.folder / layout.ratings("smoke", "")).glob("*/part-*.parquet")
        return {str(part.relative_to(self.folder)): part for part in sorted(parts)}

    def digests(self) -> dict[str, str]:
        """Returns the digest of every part of a run that is finished, with nothing left over."""
        parts = self.ratings()
        for source in SOURCES:
            folder = self.folder / layout.ratings("smoke", source)
            manifest = json.loads((folder / "manifest.json").read_bytes())
            listed = [part["path"] for part in manifest["parts"]]
            assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", *listed]
        assert len(parts) == NUM_PARTS
        return {name: file_digest(part) for name, part in parts.items()}

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Returns what shows that a part was written again."""
        return {
            name: (part.stat().st_ino, part.stat().st_mtime_ns)
            for name, part in self.ratings().items()
        }

    def claims(self) -> list[tuple[Path, dict[str, Any]]]:
        """Returns every claim on a part that is not there yet, with its owner."""
        claims = self.folder.glob(f"{layout.ratings('smoke', '*')}/.scratch/claims/part-*")
        return [
            (claim, json.loads(claim.read_bytes()))
            for claim in sorted(claims)
            if not (claim.parents[2] / claim.stem).exists()
        ]

    def owner_of(self, job: str) -> int:
        """Returns the process of a job that holds claims on parts not there yet."""
        (pid,) = {int(owner["pid"]) for _, owner in self.claims() if owner["job"] == job}
        return pid
