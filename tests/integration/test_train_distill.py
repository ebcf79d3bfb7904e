"""`mira distill` killed between two checkpoints."""

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

from mira_megatron import layout

pytestmark = pytest.mark.megatron

GROUP = "agent-python"  # the first to be distilled
CALL_OF_CHECKPOINT = 6  # after the intent, two of `.metadata`, progress and trainer's state


def test_distill_killed_and_run_again_goes_on_from_its_newest_checkpoint(
    finished_run: Path, tmp_path: Path
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", before("distill"))
    words = smoke_words("distill", run)
    killed = killed_at("after", CALL_OF_CHECKPOINT, *words)
    assert killed.exit_code == -signal.SIGKILL
    scratch = run / layout.scorer("smoke", GROUP) / ".scratch"
    assert [path.name for path in scratch.glob("training/step-*")] == ["step-1"]

    again = mira(*words)

    assert_done(again)
    assert f"distill {GROUP}: step 2 of 2" in again.output
    assert f"distill {GROUP}: step 1 of 2" not in again.output
    # Of the run that this one is a copy of, of what was killed, and of what went on.
    assert len(list((run / layout.TENSORBOARD / f"smoke.{GROUP}").iterdir())) == 3
    expected = copy_stages(finished_run, tmp_path / "expected", (*before("distill"), "distill"))
    assert differences(expected, run) == []
    assert leftovers(run) == []
