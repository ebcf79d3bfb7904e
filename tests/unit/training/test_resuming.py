import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from tiny_training import SETTINGS, SHAPE, VOCAB_SIZE, counting_samples

from mira_megatron.training.checkpoint import load_checkpoint
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.resuming import Checkpointing
from mira_megatron.training.trainer import TrainResult, train
from mira_megatron.training.training_log import EvalEntry, LogEntry

pytestmark = pytest.mark.megatron

# Neither a multiple of the other, so that a checkpoint lies between two entries of the log.
EVERY_THREE = replace(SETTINGS, train_iters=8, save_interval=3, log_interval=2, eval_interval=5)


@pytest.fixture(scope="module", autouse=True)
def process_group() -> Iterator[None]:
    with megatron_process_group():
        yield


class Stop(Exception):
    """What ends a run in its middle here."""


def stop_at(step: int) -> Callable[[LogEntry], None]:
    def listen(logged: LogEntry) -> None:
        if logged.entry.step >= step and not isinstance(logged.entry, EvalEntry):
            raise Stop

    return listen


def run(folder: Path | None, *, changes: dict[str, Any] | None = None, **given: Any) -> TrainResult:
    return train(
        model_shape=SHAPE,
        settings=replace(EVERY_THREE, **(changes or {})),
        vocab_size=VOCAB_SIZE,
        train_dataset=counting_samples(64),
        valid_dataset=counting_samples(3),
        checkpointing=(
            None if folder is None else Checkpointing(folder=folder, data_fingerprint="counting")
        ),
        **given,
    )


def stopped(folder: Path, *, at_step: int, **given: Any) -> Path:
    """A folder as a run leaves it that ends in the middle."""
    with pytest.raises(Stop):
        run(folder, on_log=stop_at(at_step), **given)
    return folder


@pytest.fixture(scope="module")
def stopped_at_6(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One checkpoint, of step 3, whose step 3 no entry of the log tells of yet."""
    return stopped(tmp_path_factory.mktemp("stopped") / "run", at_step=6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_training_equals_the_undisturbed_run_to_the_last_bit(
    tmp_path: Path, precision: str
) -> None:
    changes = {"precision": precision}
    undisturbed = run(None, changes=changes)
    heard: list[int] = []

    folder = stopped(tmp_path, at_step=6, changes=changes)
    torch.manual_seed(99)
    resumed = run(folder, changes=changes, on_log=lambda logged: heard.append(logged.entry.step))

    assert heard == [4, 5, 6, 8, 8]  # from the checkpoint of step 3 on
    assert resumed.state == undisturbed.state
    for weight, expected in zip(
        resumed.model.parameters(), undisturbed.model.parameters(), strict=True
    ):
        assert torch.equal(weight, expected)


def test_checkpoints_of_a_finished_run_are_the_newest_two(tmp_path: Path) -> None:
    result = run(tmp_path, changes={"save_interval": 2})

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-4", "step-6"]
    state = json.loads((tmp_path / "step-6" / "trainer_state.json").read_text())
    assert state["global_step"] == 6
    history = result.state.to_json()["log_history"]
    assert state["log_history"] == [entry for entry in history if entry["step"] <= 6]
    assert [entry["step"] for entry in state["log_history"]] == [0, 2, 4, 5, 6]


def test_weights_of_a_training_checkpoint_can_be_loaded_alone(tmp_path: Path) -> None:
    model = build_model(SHAPE, VOCAB_SIZE)
    changes = {"train_iters": 4, "min_learning_rate": 0.01}  # a constant rate after the warm-up

    run(tmp_path, changes=changes)
    load_checkpoint(model, tmp_path / "step-3" / "weights")

    expected = run(None, changes={**changes, "train_iters": 3}).model
    for weight, same in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(weight, same)


def test_training_does_not_initialise_a_model_that_it_resumes(
    stopped_at_6: Path, tmp_path: Path
) -> None:
    initialised: list[GPTModel] = []
    for folder in (tmp_path / "empty", shutil.copytree(stopped_at_6, tmp_path / "stopped")):
        run(folder, initialise=initialised.append)

    assert len(initialised) == 1


@pytest.mark.parametrize("left", [".step-6/weights", ".step-6", ".step-0"])
def test_unfinished_checkpoint_is_removed_and_not_resumed(
    stopped_at_6: Path, tmp_path: Path, left: str
) -> None:
    folder = shutil.copytree(stopped_at_6, tmp_path / "run")
    (folder / left).mkdir(parents=True)
    heard: list[int] = []

    run(folder, on_log=lambda logged: heard.append(logged.entry.step))

    assert heard[0] == 4
    assert sorted(path.name for path in folder.iterdir()) == ["step-3", "step-6"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.02}, r"training\.learning_rate was 0\.01 and is 0\.02"),
        ({"train_iters": 7}, r"training\.train_iters was 8 and is 7"),
        ({"precision": "bfloat16"}, r"training\.precision was 'float32' and is 'bfloat16'"),
    ],
)
def test_checkpoint_of_other_settings_is_refused(
    stopped_at_6: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"step-3: .* another run: {message}\. .* delete"):
        run(stopped_at_6, changes=changes)


def test_checkpoint_of_other_data_or_another_model_is_refused(stopped_at_6: Path) -> None:
    with pytest.raises(ValueError, match="data_fingerprint was 'counting' and is 'other'; model"):
        train(
            model_shape=replace(SHAPE, ffn_hidden_size=32),
            settings=EVERY_THREE,
            vocab_size=VOCAB_SIZE,
            train_dataset=counting_samples(64),
            valid_dataset=None,
            checkpointing=Checkpointing(folder=stopped_at_6, data_fingerprint="other"),
        )


def test_checkpoint_may_be_resumed_with_another_save_interval(
    stopped_at_6: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(stopped_at_6, tmp_path / "run")

    assert run(folder, changes={"save_interval": 7}).state == run(None).state


@pytest.mark.parametrize(
    ("spoilt_at", "message"),
    [(4, "step 5: the loss is nan"), (6, "step 6: the largest weight is nan")],
)
def test_run_that_explodes_names_the_last_good_checkpoint_and_keeps_it(
    tmp_path: Path, spoilt_at: int, message: str
) -> None:
    models: list[GPTModel] = []

    def spoil(logged: LogEntry) -> None:
        if logged.entry.step == spoilt_at:
            with torch.no_grad():
                next(models[0].parameters()).fill_(float("nan"))

    with pytest.raises(ValueError, match=rf"{message}\. Lower .* checkpoint is .*step-3\.$"):
        run(tmp_path, initialise=models.append, on_log=spoil, changes={"eval_interval": 100})

    assert [path.name for path in tmp_path.iterdir()] == ["step-3"]
    load_checkpoint(models[0], tmp_path / "step-3" / "weights")
    assert all(weight.isfinite().all() for weight in models[0].parameters())
