"""A training run's course as log lines, and its end as the counts of a manifest."""

from __future__ import annotations

import logging

from mira_megatron.manifest import Counts
from mira_megatron.training.trainer import TrainResult
from mira_megatron.training.training_log import EvalEntry, LogEntry

logger = logging.getLogger(__name__)


def log_progress(label: str, logged: LogEntry) -> None:
    """Logs one entry under the name of the unit that trains."""
    entry = logged.entry
    if isinstance(entry, EvalEntry):
        logger.info("%s: step %d, validation loss %.4f", label, entry.step, entry.eval_loss)
        return
    logger.info(
        "%s: step %d of %d, loss %.4f, %.0f tokens/s",
        label,
        entry.step,
        logged.max_steps,
        entry.loss,
        logged.tokens_per_second,
    )


def train_counts(label: str, result: TrainResult, num_samples: int, batch_size: int) -> Counts:
    """Returns how many of a train dataset's samples were trained on, in how many steps and tokens.

    Whole batches only, and no more than train_iters of them: samples beyond are logged and counted.
    """
    num_trained = result.state.global_step * batch_size
    num_left_out = num_samples - num_trained
    if num_left_out > 0:
        logger.info(
            "%s: %d of %d samples lie beyond the last step and were not trained on",
            label,
            num_left_out,
            num_samples,
        )
    return Counts(
        num_in=num_samples,
        num_out=num_trained,
        dropped={"beyond_last_step": num_left_out} if num_left_out else {},
        totals={
            "steps": result.state.global_step,
            "tokens": result.state.num_train_tokens,
            "tokens_per_second": round(result.tokens_per_second, 1),
        },
    )
