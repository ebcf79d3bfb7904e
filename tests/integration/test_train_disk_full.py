"""A disk that really fills up while a training checkpoint is written."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import test_disk_full
from forked_mira import forked
from smoke_runs import Ended, assert_done, ended
from training_run import main

pytestmark = pytest.mark.megatron

ON_SMALL_DISK = Path(__file__).with_name("on_small_disk.py")
TRAINING_RUN = Path(__file__).with_name("training_run.py")


def num_bytes(folder: Path) -> int:
    """Returns the bytes of a folder's files on a tmpfs."""
    page = test_disk_full.PAGE_BYTES
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // page) * page for size in sizes)


def trained(folder: Path) -> Ended:
    """Runs the training in a process of its own."""
    exit_code, output = forked(main, [str(folder), "never", "0"], 120)
    return Ended(exit_code, output.decode())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert_done(trained(folder))
    return folder


@pytest.mark.parametrize("room", [1.1, 1.5])  # checkpoints: the weights, or the optimizer's
def test_training_on_a_full_disk_keeps_the_last_checkpoint_and_goes_on_with_room(
    own_mounts: Sequence[str], undisturbed: Path, tmp_path: Path, room: float
) -> None:
    folder = tmp_path / "full"
    (folder / "run").mkdir(parents=True)
    room_bytes = int(room * num_bytes(undisturbed / "checkpoints" / "step-3"))
    command = [sys.executable, TRAINING_RUN, folder / "disk" / "run", "never", "0"]
    assert_done(ended([*own_mounts, sys.executable, ON_SMALL_DISK, folder, room_bytes, *command]))

    said = Ended(**json.loads((folder / "full.json").read_text()))
    assert said.exit_code == 1  # `mira` makes a message of it
    last_line = said.output.strip().splitlines()[-1]
    checkpoints = folder / "disk" / "run" / "checkpoints"
    assert f"{checkpoints}/.step-6/" in last_line, said.output
    assert "no space left while writing" in last_line
    assert "ake room and run the same command again" in last_line
    assert last_line.endswith(f"The last good checkpoint is {checkpoints}/step-3")
    assert [path.name for path in (folder / "full" / "checkpoints").iterdir()] == ["step-3"]
    # What was mounted here is gone, and the same words find what the full disk was left with.
    run = shutil.copytree(folder / "full", folder / "disk" / "run")
    assert_done(trained(run))
    for name in ("trainer_state.json", "weights-0.txt"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()
