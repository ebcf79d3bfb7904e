"""A scorer small enough to be trained in a test: it answers in the compact form, at random scores.

What it learns is the form of an answer, and how often every score is given: one of them often. So
every slot's distribution is wide, and a 10, two tokens where digits are split, has its share.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

IM_END = "<|im_end|>"
_CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", IM_END)
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")


def compact_answer(names: Sequence[str], scores: Sequence[int | None]) -> str:
    return "\n".join(
        f"[A{slot}] {name}: {'n/a' if score is None else f'{score}/10'}"
        for slot, (name, score) in enumerate(zip(names, scores, strict=True), start=1)
    )


def example_answers(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(compact_answer(names, [score] * len(names)) for score in (*range(11), None))


def record(rng: random.Random, num_words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(num_words))


def write_tiny_scorer(
    folder: Path,
    names: Sequence[str],
    *,
    is_moe: bool,
    num_steps: int,
    splits_digits: bool = True,
    favourite: int = 7,
    hidden_size: int = 64,
    vocab_size: int = 600,
    prompt_words: tuple[int, int] = (2, 8),
) -> Path:
    """Writes the hub folder of a scorer for these anchors, and returns it."""
    tokenizer = _tokenizer(names, splits_digits=splits_digits)
    torch.manual_seed(0)
    model: Any
    if is_moe:
        model = Qwen3MoeForCausalLM(_moe_config(hidden_size, vocab_size))
    else:
        model = Qwen2ForCausalLM(_dense_config(hidden_size, vocab_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for ids, labels in _batches(
        tokenizer, names, num_steps, words=prompt_words, favourite=favourite
    ):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _batches(
    tokenizer: Any, names: Sequence[str], num_steps: int, *, words: tuple[int, int], favourite: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields batches of 12 samples, right-padded, with the loss on the answers only."""
    rng = random.Random(0)
    for _ in range(num_steps):
        samples = []
        for _ in range(12):
            messages = [{"role": "user", "content": record(rng, rng.randint(*words))}]
            prompt = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
            scores = [rng.choice((*range(11), *[favourite] * 4)) for _ in names]
            answer = tokenizer(compact_answer(names, scores) + IM_END)["input_ids"]
            samples.append((tokenizer(prompt)["input_ids"], answer))
        width = max(len(prompt) + len(answer) for prompt, answer in samples)
        ids = torch.zeros(len(samples), width, dtype=torch.long)
        labels = torch.full((len(samples), width), -100)
        for row, (prompt, answer) in enumerate(samples):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.tensor(prompt + answer)
            labels[row, len(prompt) : end] = torch.tensor(answer)
        yield ids, labels


def _tokenizer(names: Sequence[str], *, splits_digits: bool) -> Any:
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    steps = [pre_tokenizers.Digits(individual_digits=True), byte_level]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps if splits_digits else [byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(_CONTROL_TOKENS),
        show_progress=False,
    )
    texts = [*example_answers(names), " ".join(WORDS), "user assistant"] * 3
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer_class: Any = PreTrainedTokenizerFast
    return tokenizer_class(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token="<|endoftext|>",
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _dense_config(hidden_size: int, vocab_size: int) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        eos_token_id=2,
        tie_word_embeddings=True,
    )


def _moe_config(hidden_size: int, vocab_size: int) -> Any:
    config_class: Any = Qwen3MoeConfig
    return config_class(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        moe_intermediate_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden_size // 4,
        num_experts=8,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        max_position_embeddings=1024,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
