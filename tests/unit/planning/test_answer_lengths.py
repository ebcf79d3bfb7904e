from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from mira_megatron.config import Recipe
from mira_megatron.planning.answer_lengths import answer_lengths, digits_example
from mira_megatron.planning.jobs import planned_jobs
from mira_megatron.planning.price import Total
from mira_megatron.planning.token_counts import PromptTokens
from mira_megatron.rubric.digits import SCORES_REGEX
from mira_megatron.rubric.prompt_form import PromptForm

pytest_plugins = ("labelled_recipes",)

COMPACT = PromptForm(prompt="bare", references=False, answers="compact")


def test_a_scorer_that_answers_in_full_writes_what_it_learnt(
    labelled: Callable[..., Recipe],
) -> None:
    recipe = labelled()
    (job, *_) = planned_jobs(recipe)
    scorer = replace(job, answered=(), taught=job.answered)
    form = job.make_form()
    lengths = answer_lengths(recipe.run_folder, scorer, form, PromptTokens(form.judge, 1.0), 20)
    parts = sorted((recipe.run_folder / job.answered[0]).glob("*.parquet"))
    raw = [text for part in parts for text in pq.read_table(part)["raw"].to_pylist()]
    assert lengths.basis == "20 labels that it learnt from"
    assert round(lengths.total.value) == sum(len(text.encode()) for text in raw)


def test_answers_of_digits_alone_have_a_token_for_each_digit_blank_and_end(
    labelled: Callable[..., Recipe],
) -> None:
    recipe = labelled()
    (job, *_) = planned_jobs(recipe)
    form = job.make_form()
    form = replace(form, judge=replace(form.judge, form=PromptForm(answers="digits")))
    lengths = answer_lengths(recipe.run_folder, job, form, PromptTokens(form.judge, 3.0), 11)
    # Scores 0 to 9: 15 digits, 14 blanks and the end; a 10 in all places is 15 more.
    assert lengths.total == Total(value=11 * 30 + 15)
    assert lengths.basis == "the form of its answers"


def test_answers_of_digits_alone_are_counted_by_the_tokenizer_where_there_is_one(
    labelled: Callable[..., Recipe], tmp_path: Path
) -> None:
    # A token for every number with its blank, and 10 is one as well.
    numbers = [f" {score}" for score in range(11)] + [f"{score}" for score in range(11)]
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(numbers)}, "0"))
    tokenizer.pre_tokenizer = Split(Regex(" ?[0-9]+"), "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    recipe = labelled()
    (job, *_) = planned_jobs(recipe)
    form = job.make_form()
    judge = replace(
        form.judge, form=PromptForm(answers="digits"), tokenizer=tmp_path / "tokenizer.json"
    )
    tokens = PromptTokens(judge, 3.0)
    lengths = answer_lengths(recipe.run_folder, job, replace(form, judge=judge), tokens, 100)
    assert lengths.total == Total(value=100 * 16)


@pytest.mark.parametrize("score", range(11))
def test_example_of_digits_is_what_guided_decoding_allows(score: int) -> None:
    assert re.fullmatch(SCORES_REGEX, digits_example(score))


def test_answers_of_one_score_per_slot_are_as_long_as_an_example(
    labelled: Callable[..., Recipe],
) -> None:
    recipe = labelled()
    (job, *_) = planned_jobs(recipe)
    form = job.make_form()
    form = replace(form, judge=replace(form.judge, form=COMPACT))
    lengths = answer_lengths(recipe.run_folder, job, form, PromptTokens(form.judge, 1.0), 10)
    names = sum(len(f"[A{slot}] {name}: ") for slot, name in enumerate(form.names, start=1))
    assert lengths.basis == "the form of its answers"
    assert 10 * (names + 15 * 3) < lengths.total.value < 10 * (names + 15 * 6)
    assert not lengths.total.is_most
