"""Recipes over a few notes that a judge can be asked about, as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml  # OmegaConf brings it

from mira_megatron.config import Recipe, load_recipe
from mira_megatron.pipeline import stage_units
from mira_megatron.records import NUM_SLOTS, Anchor
from mira_megatron.rubric.anchor_files import with_version, write_anchors
from mira_megatron.rubric.rule_judge import dimension_names
from mira_megatron.stage import Resources, Run, run_unit

NOTES = [f"# Note {number}\n\nThe {number}th note says {'word ' * number}." for number in range(20)]
_GROUP = "text-notes"  # as its descriptor pins


@pytest.fixture
def given_anchors_path(tmp_path: Path) -> Path:
    """Anchors for texts that the rule judge can rate on."""
    path = tmp_path / "given.jsonl"
    anchors = [
        Anchor(
            anchor_id="",
            name=name,
            description=None,
            part=None,
            cluster_size=None,
            aliases=(),
            medoid=None,
            references=(),
            rubric_version="",
        )
        for name in dimension_names("text")[:NUM_SLOTS]
    ]
    write_anchors(path, with_version("given", anchors))
    return path


@pytest.fixture
def judged_recipe(tmp_path: Path, given_anchors_path: Path) -> Callable[..., Recipe]:
    """Returns a recipe over 20 notes in parts of 6, these stages done; its anchors are given.

    `of_source` are further settings of its source.
    """

    def make(
        stages: Sequence[str] = ("ingest", "anchor"),
        of_source: Mapping[str, Any] | None = None,
        **sections: Any,
    ) -> Recipe:
        raw = tmp_path / "notes.jsonl"
        raw.write_bytes(b"".join(orjson.dumps({"text": note}) + b"\n" for note in NOTES))
        source = {
            "format": "jsonl",
            "family": "text",
            "group": _GROUP,
            "paths": [str(raw)],
            "fields": {"text": "text"},
            **(of_source or {}),
        }
        values = {
            "run_folder": str(tmp_path / "run"),
            "seed": 7,
            "sources": {"notes": source},
            "ingest": {"records_per_part": 6, "max_bad_fraction": 0.0},
            "teacher": {"engine": "rule_judge"},
            "score": {"engine": "rule_judge"},
            "scorers": {_GROUP: {"anchors_path": str(given_anchors_path)}},
            **sections,
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        recipe = load_recipe(path)
        for stage in stages:
            for unit in stage_units(recipe, stage):
                run_unit(unit, Run(folder=recipe.run_folder), Resources())
        return recipe

    return make
