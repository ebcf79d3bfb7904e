"""SFT steps of our trainer beside Hugging Face's code: the same model, weights and samples.

The peer is a plain torch loop over transformers' model, as its Trainer runs it: logits of every
token, cross entropy, gradient clipping, fused AdamW. Both sides start from the same weights and
must come to the same losses, or no speed is worth anything.

Prints one JSON line per figure (name, ours, peer, unit, ratio, bar); exits 1 below the bar.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import orjson
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from mira_megatron.distill.chatml import END, START
from mira_megatron.distill.scorer_tokenizer import ScorerTokenizer, train_tokenizer
from mira_megatron.distill.sft_dataset import SftDataset
from mira_megatron.training.hf_config import read_hf_shape
from mira_megatron.training.hf_weights import load_hf_weights
from mira_megatron.training.process_group import megatron_process_group
from mira_megatron.training.schedule import TrainSettings, learning_rate_at
from mira_megatron.training.trainer import TrainResult, train
from mira_megatron.training.training_log import TrainEntry

NUM_STEPS = 6
NUM_PAIRS = 5
BATCH_SIZE = 16
SEQUENCE_LENGTH = 512
VOCAB_SIZE = 4096
LOSS_TOLERANCE = 2e-3  # nats, of a step's mean; float32 sums in another order
DENSE_BAR = 0.95
SETTINGS = TrainSettings(
    sequence_length=SEQUENCE_LENGTH,
    micro_batch_size=BATCH_SIZE,
    global_batch_size=BATCH_SIZE,
    train_iters=NUM_STEPS,
    learning_rate=1e-3,
    min_learning_rate=1e-4,
    warmup_iters=1,
    weight_decay=0.1,
    adam_beta1=0.9,
    adam_beta2=0.95,
    clip_grad=1.0,
    eval_interval=1000,
    log_interval=1,
    seed=0,
)
_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": SEQUENCE_LENGTH,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, slots=True)
class Course:
    """What one side did."""

    tokens_per_second: float  # tokens with a loss
    losses: list[float]  # of every step


def main() -> int:
    """Returns the exit code."""
    is_good = True
    dense = Qwen2Config(hidden_size=256, intermediate_size=768, **_COMMON)
    mixture = Qwen3MoeConfig(
        hidden_size=128,
        head_dim=32,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=256,
        norm_topk_prob=True,
        router_aux_loss_coef=0.0,  # the peer's code leaves it out unless asked
        **_COMMON,
    )
    with tempfile.TemporaryDirectory() as name, megatron_process_group():
        folder = Path(name)
        dataset = _samples(folder)
        models = (("dense", Qwen2ForCausalLM(dense), DENSE_BAR), ("moe", _moe(mixture), None))
        for shape, model, bar in models:
            model.save_pretrained(folder / shape)
            is_good &= _compare(shape, folder / shape, type(model), dataset, bar)
    return 0 if is_good else 1


def _moe(config: Qwen3MoeConfig) -> PreTrainedModel:
    return Qwen3MoeForCausalLM(config)


def _compare(
    shape: str,
    folder: Path,
    model_class: type[PreTrainedModel],
    dataset: SftDataset,
    bar: float | None,
) -> bool:
    """Prints the figure of one shape; returns whether it is as fast as it must be."""
    pairs = []
    for _ in range(NUM_PAIRS):
        pairs.append((_ours(folder, dataset), _theirs(folder, model_class, dataset)))
    for ours, theirs in pairs:
        apart = max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True))
        if apart > LOSS_TOLERANCE:
            sys.stderr.write(f"{shape}: losses differ by {apart}: {ours.losses} {theirs.losses}\n")
            return False
    ratio = statistics.median(
        ours.tokens_per_second / theirs.tokens_per_second for ours, theirs in pairs
    )
    figure = {
        "name": f"sft_step_{shape}",
        "ours": round(statistics.median(ours.tokens_per_second for ours, _ in pairs)),
        "peer": round(statistics.median(theirs.tokens_per_second for _, theirs in pairs)),
        "unit": f"answer tokens per second, {torch.get_num_threads()} threads, median of "
        f"{NUM_PAIRS} interleaved pairs; peer: transformers' model in a plain torch loop",
        "ratio": round(ratio, 2),
        "bar": bar,
    }
    print(json.dumps(figure), flush=True)
    return bar is None or ratio >= bar


def _samples(folder: Path) -> SftDataset:
    """Returns samples as the demo has them, one to a sequence: 300 tokens asked, 170 answered."""
    text = Path(statistics.__file__).read_text(encoding="utf-8")
    train_tokenizer(
        [text, "".join(f"[A{n}] Some Name: {n}/10\n" for n in range(16))], 4000, folder / "t"
    )
    tokenizer = ScorerTokenizer(folder / "t")
    ids = tokenizer.encode(text)
    rows = []
    for number in range(NUM_STEPS * BATCH_SIZE):
        size = 270 + number % 40
        prompt = tokenizer.decode(ids[number * 50 : number * 50 + size])
        answer = "".join(f"[A{n + 1}] Some Name: {(n * number) % 11}/10\n" for n in range(15))
        rows.append(
            {
                "input": f"{START}user\n{prompt}{END}\n{START}assistant\n",
                "output": f"{answer}{END}",
                "record_id": str(number),
                "source": "benchmark",
            }
        )
    (folder / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return SftDataset(
        folder / "rows.jsonl",
        folder / "t",
        sequence_length=SEQUENCE_LENGTH,
        pad_id=tokenizer.end_id,
        seed=0,
    )


def _ours(folder: Path, dataset: SftDataset) -> Course:
    shape = read_hf_shape(folder).shape
    result: TrainResult = train(
        model_shape=shape,
        settings=SETTINGS,
        vocab_size=VOCAB_SIZE,
        train_dataset=dataset,
        valid_dataset=None,
        initialise=partial(load_hf_weights, folder=folder, shape=shape),
    )
    entries = [entry for entry in result.state.log_history if isinstance(entry, TrainEntry)]
    return Course(result.tokens_per_second, [entry.loss for entry in entries])


def _theirs(folder: Path, model_class: type[PreTrainedModel], dataset: SftDataset) -> Course:
    model = model_class.from_pretrained(folder, dtype=torch.float32).train()
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": SETTINGS.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        betas=(SETTINGS.adam_beta1, SETTINGS.adam_beta2),
        fused=True,
    )
    losses, num_tokens, seconds = [], 0, 0.0
    for step in range(1, NUM_STEPS + 1):
        started = perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, SETTINGS, NUM_STEPS)
        tokens_BS, labels_BS, is_token_BS = _batch(dataset, step)
        logits = model(input_ids=tokens_BS, attention_mask=is_token_BS).logits
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), labels_BS.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.clip_grad)
        optimizer.step()
        losses.append(loss.item())
        num_tokens += int((labels_BS != -100).sum())
        seconds += perf_counter() - started
    return Course(num_tokens / seconds, losses)


def _batch(dataset: SftDataset, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns tokens, labels (-100 without a loss) and what is a token, cut to the longest."""
    samples = [dataset[index] for index in range((step - 1) * BATCH_SIZE, step * BATCH_SIZE)]
    tokens_BS, labels_BS, loss_mask_BS = (
        torch.stack([sample[name] for sample in samples])
        for name in ("tokens", "labels", "loss_mask")
    )
    # One sample to a sequence: its last token with a loss is its end.
    ends_B = loss_mask_BS.cumsum(1).argmax(1) + 1
    longest = int(ends_B.max())
    is_token_BS = (torch.arange(longest)[None] < ends_B[:, None]).long()
    labels_BS = torch.where(loss_mask_BS > 0, labels_BS, -100)
    return tokens_BS[:, :longest], labels_BS[:, :longest], is_token_BS


if __name__ == "__main__":
    sys.exit(main())
