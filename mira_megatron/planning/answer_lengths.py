"""How long a judge's answers are going to be, from the best that is known of them.

answers     what this judge has answered before, as its server counted it: ratings of this rubric in
            the same answer mode, finished or not
labels      of a distilled scorer that answers in full: the labels it learnt from
form        answers of one score per slot are all about as long as an example of them; digits alone
            are as long to a token for every score of 10
max_tokens  nothing is known: no answer is longer
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron.planning.jobs import Job
from mira_megatron.planning.price import Total, total_of
from mira_megatron.planning.token_counts import PromptTokens
from mira_megatron.records import NUM_SLOTS
from mira_megatron.scoring.rating import RatingForm

_MAX_ANSWERS = 10_000  # more of them would not tell more
_MAX_LABELS = 200  # each is tokenized
_ANSWERED = ("ok", "partial", "unparsed")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerLengths:
    """The output tokens of a job, one answer per record, and where the figure comes from."""

    total: Total
    basis: str


def answer_lengths(
    run_folder: Path, job: Job, form: RatingForm, tokens: PromptTokens, num_records: int
) -> AnswerLengths:
    """Returns how long the answers about `num_records` records are, at least one of them."""
    judge = form.judge
    answered = _answered(run_folder, job, judge.model, judge.config.answer_mode, judge.seed)
    if answered:
        return AnswerLengths(
            total=total_of(answered, num_records),
            basis=f"{len(answered):,} answers of this judge",
        )
    examples = _example_lengths(form, tokens)
    if examples:
        value = sum(examples) / len(examples) * num_records
        return AnswerLengths(total=Total(value=value), basis="the form of its answers")
    labels = [tokens.count(text) for text in _labels(run_folder, job, judge.seed)]
    if labels:
        return AnswerLengths(
            total=total_of(labels, num_records),
            basis=f"{len(labels):,} labels that it learnt from",
        )
    assert judge.config.max_tokens is not None
    return AnswerLengths(
        total=Total(value=float(judge.config.max_tokens * num_records), is_most=True),
        basis=f"max_tokens={judge.config.max_tokens:,}: it has not answered yet",
    )


def _example_lengths(form: RatingForm, tokens: PromptTokens) -> list[float]:
    """Returns how long answers of the form are, one with every score; none where they are free."""
    if form.judge.form.answers == "digits":
        # What ends the answer is a token too, and not one in hundreds.
        return [tokens.count_digits(digits_example(score)) + 1 for score in range(11)]
    return [tokens.count(example) for example in form.example_answers()]


def digits_example(score: int) -> str:
    """Returns the answer of `answer_mode: scores_only` that gives every slot this score."""
    return " ".join([str(score)] * NUM_SLOTS)


def _answered(run_folder: Path, job: Job, model: str, answer_mode: str, seed: int) -> list[float]:
    columns = ["model", "answer_mode", "status", "num_output_tokens"]
    lengths: list[float] = []
    for table in _tables(run_folder, job.answered, columns, seed):
        is_ours = pc.and_(
            pc.equal(table["model"], model), pc.equal(table["answer_mode"], answer_mode)
        )
        is_answer = pc.is_in(table["status"], value_set=pa.array(_ANSWERED))
        of_judge = table.filter(pc.and_(is_ours, is_answer))["num_output_tokens"].drop_null()
        lengths += map(float, of_judge.to_pylist())
        if len(lengths) >= _MAX_ANSWERS:
            break
    return lengths[:_MAX_ANSWERS]


def _labels(run_folder: Path, job: Job, seed: int) -> list[str]:
    """Returns answers that a distilled scorer learnt to give, as the teacher wrote them."""
    texts: list[str] = []
    for table in _tables(run_folder, job.taught, ["status", "raw"], seed):
        texts += table.filter(pc.equal(table["status"], "ok"))["raw"].drop_null().to_pylist()
        if len(texts) >= _MAX_LABELS:
            break
    return texts[:_MAX_LABELS]


def _tables(
    run_folder: Path, folders: Sequence[str], columns: list[str], seed: int
) -> Iterator[pa.Table]:
    """Yields columns of every part there is, in an order that favours no source."""
    paths = sorted(path for each in folders for path in (run_folder / each).glob("part-*.parquet"))
    random.Random(seed).shuffle(paths)
    for path in paths:
        yield pq.read_table(path, columns=columns)
