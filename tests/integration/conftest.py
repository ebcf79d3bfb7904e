from __future__ import annotations

from pathlib import Path

import pytest
from smoke_runs import STAGES, Undisturbed, assert_done, killed_at, smoke_words


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The run that every drill is compared with, made stage by stage."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    num_calls = {}
    for stage in STAGES:
        done = killed_at("never", 0, *smoke_words(stage, folder))
        assert_done(done)
        num_calls[stage] = int(done.output.split()[-1])
    return Undisturbed(folder, num_calls)


@pytest.fixture(scope="session")
def finished_run(undisturbed: Undisturbed) -> Path:
    """The folder of the undisturbed run; tests work on copies of it."""
    return undisturbed.folder
