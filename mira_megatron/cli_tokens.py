"""The words of `mira tokens`: tools for `.bin/.idx`, and what a training reads of them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mira_megatron.cli_words import Commands, add_log_level, add_recipe


def add_tokens_tool(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds `tokens` and its words."""
    text = "write, merge, verify and trace .bin/.idx"
    tool = commands.add_parser("tokens", help=text, description=text)
    words = tool.add_subparsers(dest="word", required=True, metavar="WORD")
    _add_write(words)
    _add_merge(words)
    _add_verify(words)
    _add_replay(words)
    _add_doctor(words)
    _add_trace(words)
    _add_arguments(words)
    for word in words.choices.values():
        add_log_level(word)


def _add_write(words: Commands[argparse.ArgumentParser]) -> None:
    text = "raw jsonl(.gz/.zst) and parquet files -> one .bin/.idx, ids kept"
    word = words.add_parser("write", help=text, description=text)
    word.add_argument("files", nargs="+", type=Path, metavar="FILE", help="in this order")
    word.add_argument("--tokenizer", required=True, type=Path, help="tokenizer.json or its folder")
    word.add_argument("--output", required=True, type=_prefix, metavar="PREFIX")
    word.add_argument("--eod-token", default="<|endoftext|>", help="default: %(default)s")
    word.add_argument("--text-field", default="text", help="default: %(default)s")
    word.add_argument("--id-field", help="default: the id is file and row")
    word.add_argument(
        "--max-bad-fraction",
        type=float,
        default=0.0,
        help="of rows that are no documents and may be left out (default: none)",
    )
    word.add_argument("--backend", choices=["auto", "gigatoken", "huggingface"], default="auto")
    word.add_argument("--workers", type=_positive, default=os.cpu_count() or 1)


def _add_merge(words: Commands[argparse.ArgumentParser]) -> None:
    text = "several .bin/.idx, index views among them -> one, in the order given"
    merge = words.add_parser("merge", help=text, description=text)
    merge.add_argument("prefixes", nargs="+", type=_prefix, metavar="PREFIX")
    merge.add_argument("--may-repeat", action="store_true", help="a prefix may be named twice")
    text = "an index view -> a .bin/.idx of its own, for other tools and clusters"
    materialise = words.add_parser("materialise", help=text, description=text)
    materialise.add_argument("prefix", type=_prefix, metavar="PREFIX")
    for word in (merge, materialise):
        word.add_argument("--output", required=True, type=_prefix, metavar="PREFIX")


def _add_verify(words: Commands[argparse.ArgumentParser]) -> None:
    text = "replay Megatron's index building; prove which documents an arm's training sees"
    word = words.add_parser("verify", help=text, description=text)
    add_recipe(word)
    _add_arms(word, "several together are phases of one training, in this order")
    _add_training(word)
    word.add_argument(
        "--full", action="store_true", help="read every .bin and compare it with its manifest"
    )


def _add_replay(words: Commands[argparse.ArgumentParser]) -> None:
    text = "the same for any prefixes, without a recipe: what is seen, how often"
    word = words.add_parser("replay", help=text, description=text)
    word.add_argument("prefixes", nargs="+", type=_prefix, metavar="PREFIX")
    word.add_argument("--sequence-length", required=True, type=_positive)
    word.add_argument("--weights", nargs="+", type=float, help="one per prefix: --data-path's")
    word.add_argument("--split", help='divides the prefixes by position, as in "969,30,1"')
    word.add_argument("--eod-id", type=int, default=0, help="part of Megatron's cache key")
    word.add_argument("--vocab-size", type=int, default=0, help="part of Megatron's cache key")
    _add_training(word)


def _add_doctor(words: Commands[argparse.ArgumentParser]) -> None:
    text = "stale index caches, memory and time to expect, and what Megatron cannot read"
    word = words.add_parser("doctor", help=text, description=text)
    add_recipe(word)
    _add_arms(word)
    _add_training(word)
    word.add_argument(
        "--packed",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="SFT data whose packed files are to be looked at",
    )
    word.add_argument(
        "--prebuild",
        action="store_true",
        help="build the index caches of our own trainer and providers into --cache, on the CPU",
    )


def _add_trace(words: Commands[argparse.ArgumentParser]) -> None:
    text = "the records in a global batch, or when a record is trained on"
    word = words.add_parser("trace", help=text, description=text)
    add_recipe(word)
    word.add_argument("--arm", help="needed where the recipe has several")
    what = word.add_mutually_exclusive_group(required=True)
    what.add_argument("--iteration", type=_positive, metavar="N", help="counted from 1")
    what.add_argument("--record", metavar="ID", help="a record's id, or how it begins")
    word.add_argument("--rank", type=int, help="data-parallel, or with --tp, --pp, --cp global")
    _add_training(word)
    word.add_argument("--micro-batch-size", type=_positive, help="default: the recipe's midtrain")
    word.add_argument("--global-batch-size", type=_positive, help="default: the recipe's midtrain")
    word.add_argument("--train-iters", type=_positive, help="default: to the end of the data")
    word.add_argument("--dp", type=_positive, default=1, help="data-parallel size (default: 1)")
    for size in ("tp", "pp", "cp"):
        word.add_argument(f"--{size}", type=_positive, default=1)
    word.add_argument(
        "--start-iteration",
        type=int,
        default=0,
        metavar="N",
        help="of a phase, with its own --num-samples: the last iteration of the one before",
    )
    word.add_argument("--dataloader-type", choices=["single", "cyclic"], default="single")
    word.add_argument(
        "--rampup-batch-size", nargs=3, type=int, metavar=("START", "INCREMENT", "SAMPLES")
    )
    word.add_argument("--json", action="store_true", help="one JSON object per line")


def _add_arguments(words: Commands[argparse.ArgumentParser]) -> None:
    text = "what Megatron-LM is started with to train on an arm"
    word = words.add_parser("arguments", help=text, description=text)
    add_recipe(word)
    _add_arms(word, "several are phases, in this order")
    word.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    word.add_argument("--cache", type=Path, metavar="FOLDER", help="for Megatron's indices")
    word.add_argument("--global-batch-size", type=_positive, help="of phases: where one ends")


def _add_arms(word: argparse.ArgumentParser, several: str = "") -> None:
    help_text = f"default: all{f'; {several}' if several else ''}"
    word.add_argument("--arm", action="append", dest="arms", default=[], help=help_text)


def _add_training(word: argparse.ArgumentParser) -> None:
    word.add_argument(
        "--num-samples",
        type=_positive,
        help="train_iters x global_batch_size, as the trainer asks for it (default: one pass)",
    )
    word.add_argument("--seed", type=int, help="the trainer's (default: the recipe's, or 1234)")
    word.add_argument("--cache", type=Path, metavar="FOLDER", help="the trainer's index cache")


def _positive(word: str) -> int:
    """Returns a whole number of at least 1."""
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word} must be at least 1")
    return number


def _prefix(word: str) -> Path:
    """Returns a prefix; whoever completes file names with the tab key types .bin or .idx too."""
    path = Path(word)
    return path.with_suffix("") if path.suffix in (".bin", ".idx") else path
