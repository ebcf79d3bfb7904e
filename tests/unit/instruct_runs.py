"""A run up to what every arm is tuned on, and arms with weights of their own."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import torch
from small_run import finish

from mira_megatron import layout
from mira_megatron.config import Recipe, load_recipe
from mira_megatron.corpus import ingest
from mira_megatron.instruct import instruct_data
from mira_megatron.manifest import Manifest
from mira_megatron.stage import Resources, Run, run_unit
from mira_megatron.tokenization import tokenize
from mira_megatron.tokenization.token_dataset import read_token_dataset
from mira_megatron.training.checkpoint import save_checkpoint
from mira_megatron.training.gpt_model import build_model
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.process_group import megatron_process_group

ARMS = ("first", "second")
LENGTH = 64
SHAPE = ModelShape(
    num_layers=1,
    hidden_size=32,
    ffn_hidden_size=32,
    num_attention_heads=2,
    num_query_groups=1,
    max_sequence_length=LENGTH,
    rotary_base=10_000,
    layernorm_epsilon=1e-6,
    tie_embeddings=True,
)
TRAINING = {
    "micro_batch_size": 2,
    "global_batch_size": 2,
    "train_iters": 4,
    "learning_rate": 1e-3,
    "min_learning_rate": 1e-4,
    "warmup_iters": 1,
    "weight_decay": 0.1,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "clip_grad": 1.0,
    "eval_interval": 2,
    "log_interval": 1,
    "save_interval": 2,
}
PAIRS = [
    (f"What is {a} {sign} {b}?", f"It is {a + b if sign == '+' else a - b}.")
    for a, b, sign in itertools.product(range(1, 6), range(1, 5), "+-")
]


def recipe_of(
    folder: Path,
    *,
    pairs: Sequence[tuple[str, str]] = PAIRS,
    run: str = "run",
    arms: Sequence[str] = ARMS,
    tokenize_settings: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Recipe:
    """Returns a recipe of a text source `wiki` and a QA source `quiz`.

    `settings` are of instruct_sft.
    """
    texts = [f"{question} {answer} " * 3 for question, answer in PAIRS]
    write_lines(folder / "wiki.jsonl", [{"text": text} for text in texts])
    write_lines(folder / "quiz.jsonl", [{"q": q, "a": a} for q, a in pairs])
    fields = {"question": "q", "answer": "a"}
    values = {
        "run_folder": str(folder / run),
        "seed": 5,
        "sources": {
            "wiki": {
                "format": "jsonl",
                "family": "text",
                "fields": {"text": "text"},
                "paths": ["wiki.jsonl"],
            },
            "quiz": {"format": "jsonl", "family": "qa", "fields": fields, "paths": ["quiz.jsonl"]},
        },
        "ingest": {"records_per_part": 7, "max_bad_fraction": 0},
        "tokenize": {
            "tokenizer": None,
            "train_vocab_size": 300,
            "train_on": ["wiki"],
            "train_chars": 1000,
            "eod_token": "<|endoftext|>",
            "validation_fraction": 0.1,
            "validation_max_tokens": 100,
            **(tokenize_settings or {}),
        },
        "midtrain": {"model": asdict(SHAPE), "training": {}},
        "arms": {arm: {"score": "none", "scope": "group"} for arm in arms},
        "instruct_sft": {
            "sources": ["quiz"],
            "validation_fraction": 0.2,
            "sequence_length": LENGTH,
            "training": TRAINING,
            **settings,
        },
    }
    path = folder / "recipe.yaml"
    path.write_bytes(orjson.dumps(values))
    return load_recipe(path)


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    """Writes one row per line; bytes as they are."""
    lines = [row if isinstance(row, bytes) else orjson.dumps(row) for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def make_data(recipe: Recipe) -> Manifest:
    """Runs ingest, tokenize and instruct-data; returns the manifest of the last."""
    run = Run(folder=recipe.run_folder)
    for unit in (*ingest.units(recipe), *tokenize.units(recipe)):
        run_unit(unit, run, Resources())
    (unit,) = instruct_data.units(recipe)
    return run_unit(unit, run, Resources())


def write_checkpoint(recipe: Recipe, arm: str, *, shape: ModelShape = SHAPE) -> None:
    """Writes what midtrain leaves of an arm: large random weights, other ones for every arm."""
    folder = recipe.run_folder / layout.checkpoints(arm)
    tokens = recipe.run_folder / layout.tokens("quiz")
    random.seed(arm)
    with megatron_process_group():
        torch.manual_seed(random.randrange(1000))
        model = build_model(shape, read_token_dataset(tokens).vocab_size)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=0.1, std=0.6)
        save_checkpoint(model, folder / layout.WEIGHTS)
    finish(folder, "midtrain", arm, config={"model": asdict(shape)})
