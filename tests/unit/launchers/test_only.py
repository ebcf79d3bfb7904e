"""`mira STAGE --only UNIT`, and what must be finished before a job is run."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import yaml  # OmegaConf brings it

from mira_megatron.cli import main
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.manifest import read_manifest
from mira_megatron.pipeline import check_inputs, run_stages, unit_states
from mira_megatron.stage import Resources


@pytest.fixture
def two_sources(tmp_path: Path) -> Recipe:
    """A recipe over two sources, of which nothing is done."""
    (tmp_path / "raw.jsonl").write_bytes(orjson.dumps({"text": "A note."}) + b"\n")
    raw = {"paths": ["raw.jsonl"], "fields": {"text": "text"}}
    source = {"format": "jsonl", "family": "text", "group": "text-notes", **raw}
    values = {
        "run_folder": str(tmp_path / "run"),
        "sources": {"first": source, "second": source},
        "ingest": {"records_per_part": 6, "max_bad_fraction": 0.0},
        "teacher": {"engine": "rule_judge"},
        "discover": {"records_per_source": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    return load_recipe(tmp_path / "recipe.yaml")


def test_only_the_unit_named_is_run(two_sources: Recipe) -> None:
    run_stages(two_sources, ["ingest"], Resources(), only="second")
    assert read_manifest(two_sources.run_folder / "records/second") is not None
    assert not (two_sources.run_folder / "records/first").exists()
    states = unit_states(two_sources, ["ingest"], only="first")
    assert [(unit.name, state) for unit, state in states] == [("first", "waiting")]


def test_unknown_unit_is_refused_with_the_nearest(
    two_sources: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["ingest", str(two_sources.path), "--only", "secnd"]) == 2
    assert not two_sources.run_folder.joinpath("records").exists()
    with pytest.raises(ValueError, match=r"ingest has no unit 'secnd'. Did you mean 'second'\?"):
        unit_states(two_sources, ["ingest"], only="secnd")


def test_only_what_the_unit_reads_must_be_finished(two_sources: Recipe) -> None:
    run_stages(two_sources, ["ingest"], Resources(), only="second")
    check_inputs(two_sources, "discover", "second")
    with pytest.raises(ValueError, match="records/first, which is not finished"):
        check_inputs(two_sources, "discover")


def test_input_that_lost_a_part_is_not_finished(two_sources: Recipe) -> None:
    run_stages(two_sources, ["ingest"], Resources())
    check_inputs(two_sources, "discover")
    part = next((two_sources.run_folder / "records/first").glob("part-*"))
    part.unlink()
    with pytest.raises(ValueError, match="this part is missing"):
        check_inputs(two_sources, "discover")
