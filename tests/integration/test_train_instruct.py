"""`mira instruct-sft` killed between two checkpoints, and a second arm beside the first."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from smoke_runs import (
    ARM,
    assert_done,
    before,
    copy_stages,
    differences,
    killed_at,
    leftovers,
    mira,
    smoke_words,
)

pytestmark = pytest.mark.megatron


def test_instruct_sft_killed_and_run_again_goes_on_from_its_newest_checkpoint(
    finished_run: Path, tmp_path: Path
) -> None:
    def words(folder: Path, save_interval: int) -> list[str]:
        run = copy_stages(finished_run, folder, before("instruct-sft"))
        training = "instruct_sft.training"
        steps = (f"{training}.train_iters=4", f"{training}.save_interval={save_interval}")
        return smoke_words("instruct-sft", run, *steps)

    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    assert_done(mira(*words(undisturbed, 200)))
    killed = words(run, 1)
    call = 1  # the first is the intent
    while not list(run.rglob("step-2")):
        call += 1
        assert killed_at("after", call, *killed).exit_code == -signal.SIGKILL

    again = mira(*killed)

    assert_done(again)
    assert "step 3 of 4" in again.output
    assert "step 2 of 4" not in again.output
    assert differences(undisturbed, run) == []
    assert leftovers(run) == []


def test_a_second_arm_is_tuned_on_what_the_first_was(finished_run: Path, tmp_path: Path) -> None:
    run = copy_stages(finished_run, tmp_path / "run", before("report"))
    made = sorted((run / "instruct_data").rglob("*"))
    other = "arms.other={score: smoke, scope: group, budget_fraction: 0.3}"
    at = [path.lstat().st_mtime_ns for path in made]

    assert_done(mira(*smoke_words("run", run, other)))

    assert [path.lstat().st_mtime_ns for path in made] == at
    first, second = (
        json.loads((run / "instruct" / arm / "manifest.json").read_bytes())
        for arm in (ARM, "other")
    )
    assert first["inputs"]["instruct_data/every_arm"] == second["inputs"]["instruct_data/every_arm"]
    assert first["inputs"].keys() ^ second["inputs"].keys() == {
        f"checkpoints/{ARM}",
        "checkpoints/other",
    }
    assert first["config"] == second["config"]
    assert first["output_digest"] != second["output_digest"]
    page = (run / "report" / "index.html").read_text()
    assert page.count("<h3>Instruction tuning</h3>") == 2
