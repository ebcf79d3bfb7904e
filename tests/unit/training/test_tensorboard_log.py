from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mira_megatron.training.tensorboard_log import tensorboard_log
from mira_megatron.training.training_log import EvalEntry, LogEntry, TrainEntry


def trained(step: int, loss: float, balance: float | None = None) -> LogEntry:
    entry = TrainEntry(
        step=step, loss=loss, learning_rate=0.5, grad_norm=2.0, load_balancing_loss=balance
    )
    return LogEntry(entry=entry, max_steps=9, tokens_per_second=64.0)


def validated(step: int, loss: float) -> LogEntry:
    entry = EvalEntry(step=step, eval_loss=loss, eval_tokens=4)
    return LogEntry(entry=entry, max_steps=9, tokens_per_second=64.0)


def write(folder: Path, *entries: LogEntry) -> None:
    with tensorboard_log(folder) as log:
        assert log is not None
        for entry in entries:
            log.write(entry)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_tensorboard_log_has_a_scalar_for_every_figure(tmp_path: Path) -> None:
    write(tmp_path, validated(0, 8.0), trained(2, 4.0, balance=1.25))

    assert scalars(tmp_path) == {
        "validation/loss": [(0, 8.0)],
        "train/loss": [(2, 4.0)],
        "train/learning_rate": [(2, 0.5)],
        "train/grad_norm": [(2, 2.0)],
        "train/tokens_per_second": [(2, 64.0)],
        "train/load_balancing_loss": [(2, 1.25)],
    }


@pytest.mark.parametrize("resumed_at", [0, 4])
def test_tensorboard_log_of_a_resumed_run_has_each_step_once(
    tmp_path: Path, resumed_at: int
) -> None:
    write(tmp_path, validated(0, 8.0), trained(2, 4.0), validated(3, 3.5), trained(4, 3.0))

    again = [validated(0, 8.0), trained(2, 4.0), validated(3, 3.5), trained(4, 3.0)]
    write(tmp_path, *(e for e in again if e.entry.step >= resumed_at), trained(6, 2.0))

    found = scalars(tmp_path)
    assert found["train/loss"] == [(2, 4.0), (4, 3.0), (6, 2.0)]
    assert found["validation/loss"] == [(0, 8.0), (3, 3.5)]


def test_tensorboard_log_without_a_folder_is_none(tmp_path: Path) -> None:
    with tensorboard_log(None) as log:
        assert log is None
