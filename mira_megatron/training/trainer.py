"""Train a GPT model on Megatron datasets, straight on megatron-core.

Float32, data-parallel only, on the CPU or on GPUs: for one machine, the demo and the tests. Larger
runs belong to Megatron-Bridge. On the same machine with the same number of threads, the same seed
gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.models.gpt.gpt_model import GPTModel
from torch import Tensor, distributed

from mira_megatron.atomic_files import write_json
from mira_megatron.training.batches import Batch, Batches, TokenDataset
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import current_device
from mira_megatron.training.schedule import TrainSettings, learning_rate_at, num_train_iters


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainEntry:
    """Training since the previous entry; losses are means per token with a loss, in nats."""

    step: int
    loss: float
    learning_rate: float  # of this step
    grad_norm: float  # of this step, before clipping


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalEntry:
    """One pass over the validation dataset after `step` steps."""

    step: int
    eval_loss: float  # mean per token with a loss, in nats
    eval_tokens: int  # tokens with a loss


@dataclass(frozen=True, kw_only=True, slots=True)
class LogEntry:
    """What `on_log` is told: an entry of the log, and what must stay out of reproducible files."""

    entry: TrainEntry | EvalEntry
    max_steps: int
    tokens_per_second: float  # of this entry's own work, all processes together


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerState:
    """The course of a run, without times: the same run gives the same state."""

    global_step: int
    max_steps: int
    num_train_tokens: int  # tokens with a loss, over all steps
    log_history: tuple[TrainEntry | EvalEntry, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the layout of Hugging Face's trainer_state.json."""
        return asdict(self)

    def save(self, path: Path) -> None:
        """Writes trainer_state.json atomically."""
        write_json(path, self.to_json())


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """A trained model, how it got there, and how fast."""

    model: GPTModel
    state: TrainerState
    tokens_per_second: float  # of training, validation left out


def train(
    *,
    model_shape: ModelShape,
    settings: TrainSettings,
    vocab_size: int,
    train_dataset: TokenDataset,
    valid_dataset: TokenDataset | None,
    on_log: Callable[[LogEntry], None] | None = None,
) -> TrainResult:
    """Returns a model trained from random weights; needs `megatron_process_group`.

    Samples are taken in index order, as Megatron's single-GPU loader does: the shuffle is the
    dataset's own. Without a validation dataset the log has no evaluations. Raises ValueError where
    dataset and settings do not fit, and where the loss stops being a number.
    """
    _check_fit(model_shape, settings)
    train_iters = num_train_iters(settings, len(train_dataset))
    torch.manual_seed(settings.seed)
    if torch.cuda.is_available():
        tensor_parallel.model_parallel_cuda_manual_seed(settings.seed)
    model = build_model(model_shape, vocab_size)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay),
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
    )
    train_batches = Batches(train_dataset, settings, vocab_size)
    valid_batches = None if valid_dataset is None else Batches(valid_dataset, settings, vocab_size)

    log_history: list[TrainEntry | EvalEntry] = []
    training = _Work()
    for entry, work in _training_log(
        model, optimizer, settings, train_iters, train_batches, valid_batches
    ):
        log_history.append(entry)
        if isinstance(entry, TrainEntry):
            training += work
        if on_log is not None and distributed.get_rank() == 0:
            on_log(
                LogEntry(
                    entry=entry, max_steps=train_iters, tokens_per_second=work.tokens_per_second
                )
            )
    return TrainResult(
        model=model,
        state=TrainerState(
            global_step=train_iters,
            max_steps=train_iters,
            num_train_tokens=training.num_tokens,
            log_history=tuple(log_history),
        ),
        tokens_per_second=training.tokens_per_second,
    )


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns AdamW's groups: matrices decay; vectors, which are norms and biases, do not."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


@dataclass(frozen=True, slots=True)
class _Work:
    """Tokens that went through the model, over all processes."""

    loss_sum: float = 0.0
    num_tokens: int = 0  # with a loss
    seconds: float = 0.0

    def __add__(self, other: _Work) -> _Work:
        return _Work(
            self.loss_sum + other.loss_sum,
            self.num_tokens + other.num_tokens,
            self.seconds + other.seconds,
        )

    @property
    def mean_loss(self) -> float:
        return self.loss_sum / self.num_tokens

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / self.seconds


def _training_log(
    model: GPTModel,
    optimizer: torch.optim.Optimizer,
    settings: TrainSettings,
    train_iters: int,
    train_batches: Batches,
    valid_batches: Batches | None,
) -> Iterator[tuple[TrainEntry | EvalEntry, _Work]]:
    """Trains, and yields each entry of the log with the work behind it."""
    if valid_batches is not None:
        yield _evaluate(model, valid_batches, step=0)
    since_entry = _Work()
    for step in range(1, train_iters + 1):
        started = perf_counter()
        learning_rate = learning_rate_at(step, settings, train_iters)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        end = step * settings.global_batch_size
        batches = list(train_batches.between(end - settings.global_batch_size, end))
        loss_sum, num_tokens = _accumulate_gradient(model, optimizer, batches, step)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad))
        _check_finite("loss", loss_sum, step)
        _check_finite("gradient norm", grad_norm, step)
        optimizer.step()
        since_entry += _Work(loss_sum, num_tokens, perf_counter() - started)
        if step % settings.log_interval == 0 or step == train_iters:
            entry = TrainEntry(
                step=step,
                loss=since_entry.mean_loss,
                learning_rate=learning_rate,
                grad_norm=grad_norm,
            )
            yield entry, since_entry
            since_entry = _Work()
        if valid_batches is not None and (
            step % settings.eval_interval == 0 or step == train_iters
        ):
            yield _evaluate(model, valid_batches, step)


def _accumulate_gradient(
    model: GPTModel, optimizer: torch.optim.Optimizer, batches: list[Batch], step: int
) -> tuple[float, int]:
    """Leaves the gradient of the mean loss per token; returns the summed loss and the tokens."""
    (num_tokens,) = _sum_over_processes(sum(float(b.loss_mask_BS.sum()) for b in batches))
    if num_tokens == 0:
        raise ValueError(f"step {step}: the loss_mask is 0 for every token of the global batch")
    optimizer.zero_grad()
    loss_sum = 0.0
    for batch in batches:
        loss = _summed_loss(model, batch)
        torch.autograd.backward(loss / num_tokens)
        loss_sum += loss.item()
    if parallel_state.get_data_parallel_world_size() > 1:
        for parameter in model.parameters():
            distributed.all_reduce(parameter.grad, group=parallel_state.get_data_parallel_group())
    (loss_sum,) = _sum_over_processes(loss_sum)
    return loss_sum, int(num_tokens)


def _evaluate(model: GPTModel, batches: Batches, step: int) -> tuple[EvalEntry, _Work]:
    started = perf_counter()
    loss_sum = num_tokens = 0.0
    model.eval()
    with torch.no_grad():
        for batch in batches.between(0, len(batches.dataset)):
            loss_sum += _summed_loss(model, batch).item()
            num_tokens += float(batch.loss_mask_BS.sum())
    model.train()
    loss_sum, num_tokens = _sum_over_processes(loss_sum, num_tokens)
    if num_tokens == 0:
        raise ValueError(
            f"the validation dataset has {len(batches.dataset):,} samples and no token with a "
            "loss. Hold out more documents, or lower sequence_length."
        )
    _check_finite("validation loss", loss_sum, step)
    work = _Work(loss_sum, int(num_tokens), perf_counter() - started)
    return EvalEntry(step=step, eval_loss=work.mean_loss, eval_tokens=work.num_tokens), work


def _summed_loss(model: GPTModel, batch: Batch) -> Tensor:
    loss_BS: Tensor = model(
        batch.tokens_BS,
        batch.position_ids_BS,
        batch.attention_mask_B1SS,
        labels=batch.labels_BS,
    )
    return (loss_BS * batch.loss_mask_BS).sum()


def _sum_over_processes(*values: float) -> list[float]:
    total = torch.tensor(values, dtype=torch.float64, device=current_device())
    distributed.all_reduce(total, group=parallel_state.get_data_parallel_group())
    sums: list[float] = total.tolist()
    return sums


def _check_finite(name: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise ValueError(
            f"step {step}: the {name} is {value}. Lower learning_rate or raise warmup_iters; "
            "the log before this step shows where it began to rise."
        )


def _check_fit(shape: ModelShape, settings: TrainSettings) -> None:
    if settings.sequence_length > shape.max_sequence_length:
        raise ValueError(
            f"sequence_length={settings.sequence_length:,} exceeds the model's "
            f"max_sequence_length={shape.max_sequence_length:,}"
        )
    world_size = parallel_state.get_data_parallel_world_size()
    if settings.global_batch_size % (settings.micro_batch_size * world_size):
        raise ValueError(
            f"global_batch_size={settings.global_batch_size} must be a multiple of "
            f"micro_batch_size={settings.micro_batch_size} x {world_size} processes"
        )
