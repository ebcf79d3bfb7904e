"""A training run's course as log lines."""

from __future__ import annotations

import logging

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
