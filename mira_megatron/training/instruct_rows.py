"""Instructions from jsonl files as prompts and completions, for the tuning that every arm shares.

Reads   jsonl files the user names. A line holds either
            {"messages": [{"role": "system" | "user" | "assistant", "content": text}, ...]} or
            {"input": text, "output": text}
Writes  training.jsonl, validation.jsonl: one completion per line (distill/sft_files.SftRow), as a
            scorer's samples are; record_id is <file>:<line>, or <file>:<line>.<turn> of messages
        rows.json: how many there are, their tokens, and what was left out and why

A conversation becomes one row for each of the assistant's turns, with all before it as its prompt:
so every answer is learned once, and nothing else is. The chat form of Megatron-Bridge is not used:
with a template without `{% generation %}`, as Qwen's, 0.3.1 takes the loss on every token.
Texts that hold the tokenizer's control tokens, and rows longer than a sample, are left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import xxhash

from mira_megatron.atomic_files import replacing, write_json
from mira_megatron.distill.chatml import END, render
from mira_megatron.distill.scorer_tokenizer import ScorerTokenizer
from mira_megatron.distill.sft_files import TRAINING, VALIDATION, SftRow

ROWS = "rows.json"
ROLES = ("system", "user", "assistant")
NO_ANSWER, CONTROL_TOKEN, TOO_LONG = "no_answer", "control_token", "too_long"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class InstructRows:
    """The content of rows.json."""

    num_training: int
    num_validation: int
    training_tokens: int
    dropped: dict[str, int]  # rows, and lines without one, by reason


def read_instructions(path: Path) -> Iterator[tuple[str, list[list[dict[str, str]]]]]:
    """Yields for each line its name, <file>:<line>, and its conversations up to each answer.

    Raises ValueError naming file and line for what is no JSON object of either form.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            where = f"{path}:{number}"
            try:
                content = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON ({error}). Give one object a line.") from error
            yield f"{path.name}:{number}", _conversations(_messages(content, where))


def write_instruct_rows(
    folder: Path,
    paths: Sequence[Path],
    tokenizer_file: Path,
    *,
    sequence_length: int,
    validation_fraction: float,
    seed: int,
) -> InstructRows:
    """Writes training.jsonl, validation.jsonl and rows.json, and returns what the last holds.

    All rows of a line are on one side, chosen by the seed and the line's name. Raises ValueError
    for a file that cannot be read as instructions, or where one side would have no row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = ScorerTokenizer(tokenizer_file)
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    with ExitStack() as stack:
        # Entered in this order, put in place in the other: with training.jsonl all are there.
        files = {
            name: stack.enter_context(stack.enter_context(replacing(folder / name)).open("wb"))
            for name in (TRAINING, VALIDATION)
        }
        for path in paths:
            for name, conversations in read_instructions(path):
                if not conversations:
                    dropped[NO_ANSWER] += 1
                side = VALIDATION if _is_held_out(name, seed, validation_fraction) else TRAINING
                for turn, messages in enumerate(conversations):
                    row = _row(messages, name if len(conversations) == 1 else f"{name}.{turn}")
                    num_tokens, reason = _measure(tokenizer, row, messages, sequence_length)
                    if reason is not None:
                        dropped[reason] += 1
                        continue
                    files[side].write(row.line())
                    counts[side] += 1
                    counts[f"{side}_tokens"] += num_tokens
        for side in (TRAINING, VALIDATION):
            if counts[side] == 0:
                raise ValueError(
                    f"{', '.join(map(str, paths))}: no row for {side} is left (left out: "
                    f"{dict(dropped)}). Give more instructions, or shorter ones."
                )
    rows = InstructRows(
        num_training=counts[TRAINING],
        num_validation=counts[VALIDATION],
        training_tokens=counts[f"{TRAINING}_tokens"],
        dropped=dict(sorted(dropped.items())),
    )
    write_json(folder / ROWS, {name: getattr(rows, name) for name in rows.__slots__})
    logger.info("%s: %s", folder, rows)
    return rows


def read_instruct_rows(folder: Path) -> InstructRows | None:
    """Returns what a finished folder holds; None for one that is not there or not finished."""
    try:
        return InstructRows(**orjson.loads((folder / ROWS).read_bytes()))
    except FileNotFoundError:
        return None


def _messages(content: Any, where: str) -> list[dict[str, str]]:
    if isinstance(content, dict) and "messages" in content:
        messages = content["messages"]
        is_right = isinstance(messages, list) and all(
            isinstance(each, dict)
            and each.get("role") in ROLES
            and isinstance(each.get("content"), str)
            for each in messages
        )
        if not is_right:
            raise ValueError(
                f"{where}: messages must be a list of objects with a role ({', '.join(ROLES)}) and "
                "a content that is text. Leave out turns of tools, or write them as text."
            )
        return [{"role": each["role"], "content": each["content"]} for each in messages]
    pair = [content.get(name) for name in ("input", "output")] if isinstance(content, dict) else []
    if len(pair) != 2 or not all(isinstance(each, str) for each in pair):
        raise ValueError(f"{where}: neither has messages, nor an input and an output that are text")
    return [
        {"role": "user", "content": str(pair[0])},
        {"role": "assistant", "content": str(pair[1])},
    ]


def _conversations(messages: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """Returns the messages up to each answer that says something and answers something."""
    return [
        messages[: index + 1]
        for index, message in enumerate(messages)
        if index and message["role"] == "assistant" and message["content"].strip()
    ]


def _row(messages: list[dict[str, str]], name: str) -> SftRow:
    *before, answer = messages
    return SftRow(
        input=render(before), output=f"{answer['content']}{END}", record_id=name, source="instruct"
    )


def _measure(
    tokenizer: ScorerTokenizer,
    row: SftRow,
    messages: Sequence[dict[str, str]],
    sequence_length: int,
) -> tuple[int, str | None]:
    """Returns a row's tokens, and why it cannot be trained on."""
    prompt, answer = tokenizer.encode(row.input), tokenizer.encode(row.output)
    num_tokens = len(prompt) + len(answer)
    # A start and an end for each message before, the assistant's start; and the answer's end.
    wanted = [2 * (len(messages) - 1) + 1, 1]
    if [tokenizer.num_control_tokens(ids) for ids in (prompt, answer)] != wanted:
        return num_tokens, CONTROL_TOKEN
    return num_tokens, TOO_LONG if num_tokens > sequence_length else None


def _is_held_out(name: str, seed: int, fraction: float) -> bool:
    return xxhash.xxh3_64_intdigest(name.encode(), seed=seed) < fraction * 2**64
