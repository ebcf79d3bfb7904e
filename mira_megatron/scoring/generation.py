"""Answers of a model on this machine: from chat messages to tokens, and back to texts.

What is the same for every engine: prompts are rendered by the chat template that the model's
tokenizer brings, what does not fit the model is a typed failure of its record, and with expected
scores the places where the model may have begun to write "10" are asked about (expected_scores.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from mira_megatron.scoring.answer_draft import Place, answer_tree
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.expected_scores import Token, answer_odds, zero_probability
from mira_megatron.scoring.questions import Question
from mira_megatron.scoring.record_seed import record_seed

Top = tuple[tuple[int, float], ...]  # the likeliest tokens at a place: id, log-probability

_NUM_CACHED_TOKENS = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalModel:
    """A model folder, and how it is to answer; JudgeConfig has checked it."""

    folder: Path  # config.json, safetensors, tokenizer with chat template
    dtype: str  # float32, bfloat16 or auto: as the folder says
    max_model_len: int | None  # tokens of prompt and answer; None: as the folder says
    seed: int
    batch_size: int  # records at once, where the engine does not decide that itself
    gpu_memory_utilization: float
    tensor_parallel_size: int
    answer_regex: str | None = None  # what answers are held to, where the engine can


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, the most tokens that its answer may have, and how the answer is drawn."""

    ids: list[int]
    room: int
    seed: int = 0
    temperature: float = 0.0  # 0: the likeliest token each time
    top_p: float = 1.0
    stop: tuple[str, ...] = ()  # the answer ends with the first of these, and holds it


@dataclass(kw_only=True, slots=True)
class Generated:
    """An answer as tokens."""

    ids: list[int]  # without the one that ends it
    tops: list[Top | None]  # of each; None where there was no choice, or nobody asked
    num_tokens: int  # with the one that ends it
    finish_reason: str  # stop, or length: cut off
    # What would have come after another token: its number, from 0, -> the likeliest then.
    after_other: dict[int, Top] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OtherToken:
    """A question about an answer: had this token stood there, what would have come next?"""

    number: int  # of the token, from 0
    token_id: int


# Returns what else is to be asked about an answer.
Doubts = Callable[[Generated], Sequence[OtherToken]]


class Engine(Protocol):
    """What runs a model."""

    @property
    def tokenizer(self) -> Any:
        """Returns the model's tokenizer, of transformers."""

    @property
    def max_model_len(self) -> int:
        """Returns the most tokens of prompt and answer together."""

    def batches(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        """Yields the numbers of the prompts that are best answered at once; every one is in one."""

    def generate(
        self, prompts: Sequence[Prompt], draft: Place | None, doubts: Doubts | None
    ) -> list[Generated]:
        """Returns the answers to a batch, in the order of the prompts.

        `draft` is what they are likely to say, before their first token; it must leave open what is
        to be asked about, for its own tokens have no tops. With `doubts` the answers
        have their tops, and what came of it.
        """

    def close(self) -> None:
        """Frees the model's memory; nothing may be asked after that."""


def fitting_ids(
    key: str, engine: Engine, text: str, *, least_room: int, has_special: bool = False
) -> list[int] | Answer:
    """Returns a text's tokens, or why the model cannot be asked with so much room for its answer.

    With `has_special` what the tokenizer begins or ends every text with is there as well.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Answer(key=key, failure="unencodable", failure_detail=str(error))
    ids: list[int] = engine.tokenizer(text, add_special_tokens=has_special)["input_ids"]
    if engine.max_model_len - len(ids) < least_room:
        detail = f"{len(ids)} tokens, and max_model_len={engine.max_model_len}"
        return Answer(key=key, failure="too_long", failure_detail=detail)
    return ids


class LocalJudge:
    """Answers questions with the model that an engine runs."""

    def __init__(
        self,
        engine: Engine,
        *,
        max_tokens: int,
        is_expected: bool,
        seed: int = 0,
        temperature: float = 0.0,
        top_p: float = 1.0,
        examples: Sequence[str] = (),
    ) -> None:
        self._engine = engine
        self._tokenizer = engine.tokenizer
        self._max_tokens = max_tokens
        self._is_expected = is_expected
        self._seed = seed
        self._temperature = temperature
        self._top_p = top_p
        self._text = lru_cache(_NUM_CACHED_TOKENS)(self._uncached_text)
        self._draft = self._draft_of(examples) if examples else None

    def answers(self, questions: Sequence[Question]) -> Iterator[list[Answer]]:
        """Yields the answers batch by batch, each batch as soon as it is generated.

        They are in the order that suits the engine; what cannot be asked comes first.
        """
        prompts = [self._prompt(question) for question in questions]
        failed = [prompt for prompt in prompts if isinstance(prompt, Answer)]
        if failed:
            yield failed
        asked = [
            (question, prompt)
            for question, prompt in zip(questions, prompts, strict=True)
            if isinstance(prompt, Prompt)
        ]
        doubts = self._doubts if self._is_expected else None
        for numbers in self._engine.batches([prompt for _, prompt in asked]):
            batch = [asked[number] for number in numbers]
            generated = self._engine.generate([prompt for _, prompt in batch], self._draft, doubts)
            yield [
                self._answer(question, prompt, each)
                for (question, prompt), each in zip(batch, generated, strict=True)
            ]

    def close(self) -> None:
        """Frees the model's memory; the next unit's model may need it."""
        self._engine.close()

    def _prompt(self, question: Question) -> Prompt | Answer:
        """Returns what to ask, or why it cannot be asked."""
        text = self._tokenizer.apply_chat_template(
            list(question.messages), add_generation_prompt=True, tokenize=False
        )
        ids = fitting_ids(question.key, self._engine, text, least_room=1)
        if isinstance(ids, Answer):
            return ids
        room = self._engine.max_model_len - len(ids)
        seed = record_seed(self._seed, question.record_id, attempt=1)
        return Prompt(
            ids, min(room, self._max_tokens), seed, temperature=self._temperature, top_p=self._top_p
        )

    def _answer(self, question: Question, prompt: Prompt, generated: Generated) -> Answer:
        text = self._tokenizer.decode(generated.ids, skip_special_tokens=True)
        odds = None
        if self._is_expected:
            odds = tuple(
                each.with_zero(zero_probability(self._texts(generated.after_other[each.token])))
                if each.token in generated.after_other
                else each
                for each in answer_odds(self._tokens(generated))
            )
        return Answer(
            key=question.key,
            text=text or None,
            finish_reason=generated.finish_reason,
            num_prompt_tokens=len(prompt.ids),
            num_output_tokens=generated.num_tokens,
            failure=None if text else "no_content",
            failure_detail=None if text else f"finish_reason: {generated.finish_reason}",
            is_completion=True,
            odds=odds,
        )

    def _doubts(self, generated: Generated) -> list[OtherToken]:
        """Returns every place where "1" is likely, to be told from 10."""
        others = []
        for odds in answer_odds(self._tokens(generated)):
            if odds.is_open:
                top = generated.tops[odds.token] or ()
                ones = (id_ for id_, _ in top if self._text(id_) == f"{odds.before}1")
                others.append(OtherToken(odds.token, next(ones)))
        return others

    def _tokens(self, generated: Generated) -> list[Token]:
        return [
            Token(self._text(token_id), () if top is None else self._texts(top))
            for token_id, top in zip(generated.ids, generated.tops, strict=True)
        ]

    def _texts(self, top: Top) -> tuple[tuple[str, float], ...]:
        return tuple((self._text(token_id), logprob) for token_id, logprob in top)

    def _uncached_text(self, token_id: int) -> str:
        return str(self._tokenizer.decode([token_id]))

    def _draft_of(self, examples: Sequence[str]) -> Place:
        """Returns the tree of the example answers, each ended as the model ends one."""
        end_id = self._tokenizer.eos_token_id
        trees = []
        for text in examples:
            encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            lines: list[list[int]] = [[] for _ in text.split("\n")]
            for token_id, (start, _) in zip(
                encoded["input_ids"], encoded["offset_mapping"], strict=True
            ):
                lines[text.count("\n", 0, start)].append(token_id)
            lines[-1].append(end_id)
            trees.append(lines)
        return answer_tree(trees)
