"""A model's loss on whole documents, each read alone and from its start.

Shape letters: B windows of a batch, S tokens of the longest of them, H hidden size, N tokens of the
batch that are predicted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, isfinite

import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from torch import Tensor
from torch.nn import functional

from mira_megatron.baselines.token_windows import Window, windows_of
from mira_megatron.progress import track
from mira_megatron.training.batches import Batch
from mira_megatron.training.process_group import current_device
from mira_megatron.training.token_loss import hidden_states

_TOKENS_AT_ONCE = 8192  # of a batch; one window at least
_LOGITS_AT_ONCE = 1 << 26  # 256 MiB in float32


def document_nats(
    model: GPTModel,
    documents: Sequence[Sequence[int]],
    *,
    vocab_size: int,
    window_tokens: int,
    title: str,
) -> list[float]:
    """Returns the cross entropy in nats of each document's tokens, summed over all but the first.

    Windows overlap by half. The rows that pad the vocabulary beyond `vocab_size` are no tokens and
    get no probability, as in an export. Raises ValueError for a token that is not of the vocabulary
    and where a loss is no number. `title` is what progress is called.
    """
    highest = max((max(ids) for ids in documents if ids), default=0)
    if highest >= vocab_size:
        raise ValueError(
            f"a held-out document has token id {highest:,}, but the model has {vocab_size:,} "
            "tokens. Tokenise with the model's own tokenizer."
        )
    stride = max(1, window_tokens // 2)
    windows = [
        (number, window)
        for number, ids in enumerate(documents)
        for window in windows_of(ids, window_tokens, stride)
    ]
    nats: list[list[float]] = [[] for _ in documents]
    # Alike in length, so that little of a batch is padding.
    windows.sort(key=lambda item: -len(item[1].ids))
    with track(title, len(windows)) as advance:
        while windows:
            num_rows = max(1, _TOKENS_AT_ONCE // len(windows[0][1].ids))
            rows, windows = windows[:num_rows], windows[num_rows:]
            found = window_nats(model, [window for _, window in rows], vocab_size)
            for (number, _), value in zip(rows, found, strict=True):
                nats[number].append(value)
            advance(len(rows))
    totals = [fsum(each) for each in nats]
    if not all(map(isfinite, totals)):
        raise ValueError(
            "the loss on a held-out document is no number: the model's weights are damaged or its "
            "training went astray. See the log of its training, and train it again."
        )
    return totals


@torch.no_grad()
def window_nats(model: GPTModel, windows: Sequence[Window], vocab_size: int) -> list[float]:
    """Returns the nats of every window's targets, summed in float64."""
    batch = _batch(windows)
    hidden_SBH = hidden_states(model, batch)
    is_target_SB = batch.loss_mask_BS.t() != 0
    hidden_NH, labels_N = hidden_SBH[is_target_SB], batch.labels_BS.t()[is_target_SB]
    rows_N = torch.arange(len(windows), device=labels_N.device).expand(is_target_SB.shape)
    rows_N = rows_N[is_target_SB]
    nats_B = torch.zeros(len(windows), dtype=torch.float64, device=labels_N.device)
    at_once = max(1, _LOGITS_AT_ONCE // vocab_size)
    for start in range(0, len(labels_N), at_once):
        own = slice(start, start + at_once)
        logits_NV, _ = model.output_layer(hidden_NH[own], weight=_output_weight(model))
        loss_N = functional.cross_entropy(
            logits_NV[:, :vocab_size].float(), labels_N[own], reduction="none"
        )
        nats_B.index_add_(0, rows_N[own], loss_N.double())
    nats: list[float] = nats_B.tolist()
    return nats


def _output_weight(model: GPTModel) -> Tensor | None:
    if not model.share_embeddings_and_output_weights:
        return None
    weight: Tensor = model.shared_embedding_or_output_weight()
    return weight


def _batch(windows: Sequence[Window]) -> Batch:
    """Returns windows side by side; what follows a short one is seen by none of its tokens."""
    length = max(len(window.ids) for window in windows) - 1
    tokens_BS = torch.zeros(len(windows), length, dtype=torch.long)
    labels_BS = torch.zeros_like(tokens_BS)
    loss_mask_BS = torch.zeros(len(windows), length)
    for row, window in enumerate(windows):
        ids = torch.tensor(list(window.ids))
        tokens_BS[row, : len(ids) - 1] = ids[:-1]
        labels_BS[row, : len(ids) - 1] = ids[1:]
        loss_mask_BS[row, window.first_target - 1 : len(ids) - 1] = 1
    device = current_device()
    return Batch(
        tokens_BS=tokens_BS.to(device),
        labels_BS=labels_BS.to(device),
        loss_mask_BS=loss_mask_BS.to(device),
        position_ids_BS=torch.arange(length, device=device).expand(len(windows), length),
        attention_mask_B1SS=None,
    )
