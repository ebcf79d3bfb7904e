"""Training that is killed, that runs out of disk, and that is done by two processes."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from forked_mira import forked
from smoke_runs import Ended, assert_done, at_once, ended
from training_run import main

pytestmark = pytest.mark.megatron

TRAINING_RUN = Path(__file__).with_name("training_run.py")
# Of the 32 backward passes the first checkpoint comes after the 12th, the second after the 24th.
KILLS = [
    ("backward", 1),
    ("backward", 14),
    ("backward", 27),
    ("fsync", 1),  # in the first checkpoint, by a forked writer
    ("fsync", 7),
    ("fsync", 12),
    ("replace", 2),
    ("replace", 5),
    ("replace", 9),
]


def trained(folder: Path, *moment: object) -> Ended:
    """Runs the training in a process of its own."""
    folder.mkdir(exist_ok=True)
    exit_code, output = forked(main, [str(folder), *map(str, moment or ("never", 0))], 120)
    return Ended(exit_code, output.decode())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert_done(trained(folder))
    return folder


def test_training_killed_anywhere_ends_with_the_same_curve_and_weights(
    undisturbed: Path, tmp_path: Path
) -> None:
    def wrong(kill: tuple[str, int]) -> str | None:
        folder = tmp_path / f"{kill[0]}-{kill[1]}"
        killed = trained(folder, *kill)
        if killed.exit_code != -signal.SIGKILL:
            return f"{kill}: was not killed: {killed.output}"
        again = trained(folder)
        if again.exit_code:
            return f"{kill}: {again.output}"
        for name in ("trainer_state.json", "weights-0.txt"):
            if (folder / name).read_bytes() != (undisturbed / name).read_bytes():
                return f"{kill}: another {name}"
        left = sorted(path.name for path in (folder / "checkpoints").iterdir())
        return None if left == ["step-3", "step-6"] else f"{kill}: left {left}"

    assert [what for what in at_once(wrong, KILLS) if what] == []


def test_training_killed_after_a_checkpoint_goes_on_from_there(tmp_path: Path) -> None:
    assert trained(tmp_path, "backward", 27).exit_code == -signal.SIGKILL
    # Two steps of four micro-batches are left: the ninth pass would be the third step's.
    assert_done(trained(tmp_path, "backward", 9))
    assert_done(trained(tmp_path))


def test_training_under_torchrun_in_two_processes_gives_the_losses_of_one(
    undisturbed: Path, tmp_path: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]

    assert_done(ended([*torchrun, "--nproc-per-node=2", TRAINING_RUN, tmp_path, "never", "0"]))

    one, two = (
        json.loads((folder / "trainer_state.json").read_text())
        for folder in (undisturbed, tmp_path)
    )
    assert len(one["log_history"]) == 7
    for expected, entry in zip(one["log_history"], two["log_history"], strict=True):
        assert entry == pytest.approx(expected, rel=1e-4)  # float32 sums in another order
    weights = [(tmp_path / f"weights-{rank}.txt").read_text() for rank in (0, 1)]
    assert weights[0] == weights[1]
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-3", "step-6"]
