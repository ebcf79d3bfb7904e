"""`mira midtrain` killed between two checkpoints."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from smoke_runs import (
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


def test_midtrain_killed_and_run_again_goes_on_from_its_newest_checkpoint(
    finished_run: Path, tmp_path: Path
) -> None:
    def words(folder: Path, save_interval: int) -> list[str]:
        run = copy_stages(finished_run, folder, before("midtrain"))
        steps = ("midtrain.training.train_iters=4", "midtrain.training.log_interval=1")
        save = f"midtrain.training.save_interval={save_interval}"
        return smoke_words("midtrain", run, *steps, save)

    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    assert_done(mira(*words(undisturbed, 200)))
    killed = words(run, 1)
    call = 2  # the first two are the intent and coverage.json
    while not list(run.rglob("step-2")):
        call += 1
        assert killed_at("after", call, *killed).exit_code == -signal.SIGKILL

    again = mira(*killed)

    assert_done(again)
    assert "step 3 of 4" in again.output
    assert "step 2 of 4" not in again.output
    assert differences(undisturbed, run) == []
    assert leftovers(run) == []
