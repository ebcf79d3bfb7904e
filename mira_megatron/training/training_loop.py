"""The steps of a training run: gradient, update, log, validation, checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from megatron.core.models.gpt.gpt_model import GPTModel

from mira_megatron.training.adamw import Float32AdamW
from mira_megatron.training.batches import Batches
from mira_megatron.training.gradient import accumulate_gradient
from mira_megatron.training.process_group import sum_over_processes
from mira_megatron.training.resuming import TrainingCheckpoints
from mira_megatron.training.schedule import TrainSettings, learning_rate_at
from mira_megatron.training.token_loss import summed_loss
from mira_megatron.training.training_log import EvalEntry, LogEntry, Progress, TrainEntry, Work


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRun:
    """One run; `progress` is where it stands, and moves on with every step."""

    model: GPTModel
    optimizer: Float32AdamW
    settings: TrainSettings
    train_iters: int
    train_batches: Batches
    valid_batches: Batches | None
    checkpoints: TrainingCheckpoints | None
    listeners: Sequence[Callable[[LogEntry], None]]
    progress: Progress

    def to_the_end(self) -> None:
        """Takes the steps that are left."""
        if self.progress.step == 0:
            self._validate()
        while self.progress.step < self.train_iters:
            self._take_step()
            step, settings = self.progress.step, self.settings
            is_last = step == self.train_iters
            if is_last or step % settings.eval_interval == 0:
                self._validate()
            if self.checkpoints and not is_last and step % settings.save_interval == 0:
                self._check_finite("largest weight", self.optimizer.largest_weight(), step)
                self.checkpoints.save(self.model, self.optimizer, self.progress, self.train_iters)

    def _take_step(self) -> None:
        step = self.progress.step + 1
        started = perf_counter()
        end = step * self.settings.global_batch_size
        batches = list(self.train_batches.between(end - self.settings.global_batch_size, end))
        work = accumulate_gradient(self.model, self.optimizer.gradients, batches)
        if work.num_tokens == 0:
            raise ValueError(f"step {step}: the loss_mask is 0 for every token of the global batch")
        grad_norm = self.optimizer.gradients.clip(self.settings.clip_grad)
        self._check_finite("loss", work.loss_sum, step)
        self._check_finite("gradient norm", grad_norm, step)
        learning_rate = learning_rate_at(step, self.settings, self.train_iters)
        self.optimizer.step(learning_rate)
        self.progress.count(work, perf_counter() - started)
        if step % self.settings.log_interval == 0 or step == self.train_iters:
            since_entry = self.progress.since_entry
            entry = TrainEntry(
                step=step,
                loss=since_entry.mean_loss,
                learning_rate=learning_rate,
                grad_norm=grad_norm,
                load_balancing_loss=since_entry.mean_load_balancing_loss,
            )
            self.progress.since_entry = Work()
            self._log(entry, since_entry)

    def _validate(self) -> None:
        if self.valid_batches is None:
            return
        started = perf_counter()
        loss_sum = num_tokens = 0.0
        self.model.eval()
        with torch.no_grad():
            for batch in self.valid_batches.between(0, len(self.valid_batches.dataset)):
                loss_sum += summed_loss(self.model, batch).item()
                num_tokens += float(batch.loss_mask_BS.sum())
        self.model.train()
        loss_sum, num_tokens = sum_over_processes(loss_sum, num_tokens)
        if num_tokens == 0:
            raise ValueError(
                f"the validation dataset has {len(self.valid_batches.dataset):,} samples and no "
                "token with a loss. Hold out more documents, or lower sequence_length."
            )
        step = self.progress.step
        self._check_finite("validation loss", loss_sum, step)
        work = Work(loss_sum=loss_sum, num_tokens=int(num_tokens), seconds=perf_counter() - started)
        entry = EvalEntry(step=step, eval_loss=work.mean_loss, eval_tokens=work.num_tokens)
        self._log(entry, work)

    def _log(self, entry: TrainEntry | EvalEntry, work: Work) -> None:
        self.progress.log_history = (*self.progress.log_history, entry)
        logged = LogEntry(
            entry=entry, max_steps=self.train_iters, tokens_per_second=work.tokens_per_second
        )
        for listener in self.listeners:
            listener(logged)

    def _check_finite(self, name: str, value: float, step: int) -> None:
        if math.isfinite(value):
            return
        if step == 0:
            raise ValueError(f"before the first step, the {name} is {value}: so are the weights")
        last_good = "" if self.checkpoints is None else f" {self.checkpoints.last_good()}."
        raise ValueError(
            f"step {step}: the {name} is {value}. Lower learning_rate or raise warmup_iters; "
            f"the log before this step shows where it began to rise.{last_good}"
        )
