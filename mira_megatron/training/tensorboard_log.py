"""A training log as TensorBoard scalars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from mira_megatron.atomic_files import explaining_full_disk
from mira_megatron.training.training_log import LogEntry, TrainEntry

# The writer's own thread says neither which file nor the way out.
_WRITING = "writing. Make room and run the same command again"


class TensorBoardLog:
    """Writes each entry it is told; opens its file at the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def write(self, logged: LogEntry) -> None:
        """Adds the entry's scalars at its step; OSError (one of NO_SPACE) if the disk is full."""
        step = logged.entry.step
        with explaining_full_disk(self._folder, _WRITING):
            if self._writer is None:
                # A resumed run repeats steps that the killed one had logged: readers forget those.
                self._writer = SummaryWriter(str(self._folder), purge_step=step)
            for name, value in _scalars(logged).items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def close(self) -> None:
        """Ends the file; OSError (one of NO_SPACE) if the disk is full."""
        if self._writer is not None:
            with explaining_full_disk(self._folder, _WRITING):
                self._writer.close()


@contextmanager
def tensorboard_log(folder: Path | None) -> Iterator[TensorBoardLog | None]:
    """Yields a log in `folder` for as long as the block lasts; None where no folder is given."""
    if folder is None:
        yield None
        return
    log = TensorBoardLog(folder)
    try:
        yield log
    finally:
        log.close()


def _scalars(logged: LogEntry) -> dict[str, float]:
    entry = logged.entry
    if not isinstance(entry, TrainEntry):
        return {"validation/loss": entry.eval_loss}
    scalars = {
        "train/loss": entry.loss,
        "train/learning_rate": entry.learning_rate,
        "train/grad_norm": entry.grad_norm,
        "train/tokens_per_second": logged.tokens_per_second,
    }
    if entry.load_balancing_loss is not None:
        scalars["train/load_balancing_loss"] = entry.load_balancing_loss
    return scalars
