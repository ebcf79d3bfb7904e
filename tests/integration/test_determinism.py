"""The same recipe gives the same bytes, whatever the number of workers and the folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml  # OmegaConf brings it
from smoke_runs import (
    ARM,
    SMOKE,
    assert_done,
    before,
    copy_stages,
    differences,
    ended,
    leftovers,
    mira,
    smoke_words,
)


def test_run_with_two_workers_elsewhere_gives_the_same_bytes(
    finished_run: Path, tmp_path: Path
) -> None:
    # The report tells how long each stage took, so it is not the same twice.
    made = before("report")
    expected = copy_stages(finished_run, tmp_path / "expected", made)
    # An interpreter of its own: what depended on the order of a set would not be the same.
    words = smoke_words("run", tmp_path / "another" / "place")
    command = [sys.executable, "-m", "mira_megatron.cli", *words, "--workers=2"]
    assert_done(ended(command))
    found = copy_stages(tmp_path / "another" / "place", tmp_path / "found", made)
    assert differences(expected, found) == []
    assert leftovers(found) == []


def test_sources_in_another_order_give_the_same_bytes_or_another_fingerprint(
    finished_run: Path, tmp_path: Path
) -> None:
    recipe = yaml.safe_load(SMOKE.read_text())
    recipe["sources"] = dict(reversed(recipe["sources"].items()))
    reordered = tmp_path / "reordered.yaml"
    reordered.write_text(yaml.safe_dump(recipe, sort_keys=False))
    run = copy_stages(finished_run, tmp_path / "run", before("select"))
    for stage in ("select", "sensitivity", "blend"):
        assert_done(mira(*smoke_words(stage, run, recipe=reordered)))
    expected = copy_stages(finished_run, tmp_path / "expected", before("midtrain"))
    blends = [
        json.loads((at / f"blends/{ARM}/manifest.json").read_text()) for at in (expected, run)
    ]
    if blends[0]["fingerprint"] == blends[1]["fingerprint"]:
        assert differences(expected, run) == []
