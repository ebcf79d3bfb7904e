from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
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


@pytest.fixture(scope="session")
def own_mounts(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """The words before a command that may mount; as root, or as root of a user namespace."""
    folder = tmp_path_factory.mktemp("mount")
    for words in (["unshare", "-m"], ["unshare", "-rm"]):
        try:
            tried = [*words, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
            subprocess.run(tried, check=True, capture_output=True)
        except (FileNotFoundError, subprocess.CalledProcessError):
            continue
        return words
    message = "no small disk here: neither `unshare -m` nor `unshare -rm` may mount a tmpfs"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
