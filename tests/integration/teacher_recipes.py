"""A small recipe whose records a fake teacher judges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml  # OmegaConf brings it
from fake_teacher import FakeTeacher, teacher_section
from jsonl_corpora import text_source, write_jsonl, write_recipe

from mira_megatron.config import load_recipe
from mira_megatron.pipeline import run_stages
from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.stage import Resources

NUM_NOTES = 60
_AFTER_LABEL = ("score", "aggregate", "tokenize", "arms", "select", "blend", "midtrain")
JUDGMENTS = "judgments/mira/notes"
RATINGS = "teacher_ratings/mira/notes"


def teacher_recipe(folder: Path, teacher: FakeTeacher, **settings: Any) -> Path:
    """Writes a recipe over 60 notes in parts of 10, all to be judged by the teacher, and ingests.

    Labelling needs no discovery: the group's anchors are a published table.
    """
    rows = [
        {"text": f"Note {number}: {'again and ' * number}so on."} for number in range(NUM_NOTES)
    ]
    source = text_source(write_jsonl(folder / "notes.jsonl", rows))
    path = write_recipe(folder / "recipe.yaml", {"notes": source}, ["notes"])
    recipe = yaml.safe_load(path.read_text())
    recipe.pop("group", None)  # the notes are the group `text`, by their family
    recipe["rubric"] = "mira"
    recipe["ingest"]["records_per_part"] = 10
    recipe["teacher"] = teacher_section(teacher, **settings)
    recipe["discover"] = {"records_per_source": NUM_NOTES}
    recipe["label"] = {"records_per_source": NUM_NOTES, "reliability_fraction": 0.3}
    for later in _AFTER_LABEL:  # there is no scorer yet
        recipe.pop(later, None)
    path.write_text(yaml.safe_dump(recipe))
    run_stages(load_recipe(path), ["ingest"], Resources())
    return path


def with_given_anchors(path: Path) -> Path:
    """Gives the notes' group anchors, and makes them known to the run."""
    recipe = yaml.safe_load(path.read_text())
    recipe["scorers"] = {"text": {"published": "text-group3"}}
    path.write_text(yaml.safe_dump(recipe))
    run_stages(load_recipe(path), ["anchor"], Resources())
    return path


def run_folder(recipe: Path) -> Path:
    """Returns where the recipe's run lies."""
    return Path(yaml.safe_load(recipe.read_text())["run_folder"])


def totals(recipe: Path, unit: str) -> dict[str, int]:
    """Returns what the manifest of a unit counted."""
    manifest = json.loads((run_folder(recipe) / unit / "manifest.json").read_bytes())
    return dict(manifest["counts"]["totals"])


def part_digests(recipe: Path, unit: str) -> dict[str, str]:
    """Returns the digest of every file of a finished unit."""
    manifest = json.loads((run_folder(recipe) / unit / "manifest.json").read_bytes())
    return {part["path"]: part["digest"] for part in manifest["parts"]}


def rows(recipe: Path, unit: str, stem: str = "part") -> pa.Table:
    """Returns the rows of all files of a unit whose names begin with `stem`."""
    paths = sorted((run_folder(recipe) / unit).glob(f"{stem}-*.parquet"))
    return pa.concat_tables(pq.read_table(path) for path in paths)


def num_stored(recipe: Path) -> int:
    """Returns how many questions' answers are kept; nobody may be writing."""
    return len(AnswerStore(run_folder(recipe) / "answers"))
