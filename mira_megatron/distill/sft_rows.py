"""Samples of one part: the teacher's rows and their records, as prompts and answers.

What of a part is left out, and why:
    teacher_<status>    the teacher's answer is not whole (partial, unparsed, refused …)
    answer_incomplete   full answers: a justification or a line of the footer is null
    control_token       beside our own there is one in the prompt or the answer: the tokenizer has
                        one that `fence.quote` does not know
    over_long           prompt and answer have more tokens than a sequence
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mira_megatron.distill.chatml import END, render
from mira_megatron.distill.scorer_tokenizer import ScorerTokenizer
from mira_megatron.distill.sft_files import SftRow
from mira_megatron.records import DISTILL, RECORD_SCHEMA, Anchor, Record, records_from_table
from mira_megatron.rubric.fence import quote
from mira_megatron.rubric.prompt_form import PromptForm
from mira_megatron.rubric.prompts import one_line, score_messages
from mira_megatron.rubric.replies import format_reply
from mira_megatron.rubric.verdict import Verdict
from mira_megatron.rubric.views import View, ViewMaker
from mira_megatron.shards import read_part

_RATING_COLUMNS = (
    *("record_id", "scores", "rationales", "overall", "training_recommendation", "domain_tag"),
    *("brief", "status", "reason", "split"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedPart:
    """A part of a source's teacher ratings, and the part of its records that was rated."""

    source: str
    name: str  # of both files
    ratings: Path
    ratings_digest: str
    records: Path
    records_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A row that fits a sequence, and what the length report says of it."""

    row: SftRow
    content_hash: str
    num_prompt_tokens: int
    num_answer_tokens: int
    is_whole: bool  # the record is shown as it is


@dataclass(frozen=True, slots=True)
class Dropped:
    """A labelled record that is not trained on."""

    record_id: str
    source: str
    reason: str
    detail: str | None


def distill_half(part: RatedPart) -> tuple[list[dict[str, Any]], int]:
    """Returns the ratings of the distill half, and how many are held back for reliability."""
    table = read_part(part.ratings, part.ratings_digest, _RATING_COLUMNS)
    is_distill = pc.equal(table["split"], DISTILL)
    rows: list[dict[str, Any]] = table.filter(is_distill).to_pylist()
    return rows, table.num_rows - len(rows)


def records_of(part: RatedPart, record_ids: Sequence[str]) -> Iterator[Record]:
    """Yields the records of these ids in their order in the part."""
    table = read_part(part.records, part.records_digest, RECORD_SCHEMA.names)
    table = table.filter(pc.is_in(table["record_id"], value_set=pa.array(record_ids, pa.string())))
    if table.num_rows != len(record_ids):
        raise ValueError(
            f"{part.records}: {len(record_ids) - table.num_rows:,} of the records rated in "
            f"{part.ratings} are not in it. The labels are of other records: move "
            f"{part.ratings.parent} away and run `mira label`."
        )
    for batch in table.to_batches(max_chunksize=64):  # Python's copies of a whole part are large
        yield from records_from_table(pa.Table.from_batches([batch]))


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleMaker:
    """Makes samples for one group's scorer."""

    family: str
    anchors: tuple[Anchor, ...]
    form: PromptForm
    view_maker: ViewMaker
    tokenizer: ScorerTokenizer
    sequence_length: int  # tokens

    def sample(self, record: Record, rating: Mapping[str, Any]) -> Sample | Dropped:
        """Returns the sample that a rating makes, or why it makes none."""

        def dropped(reason: str, detail: str | None) -> Dropped:
            return Dropped(record.record_id, record.source, reason, detail)

        if rating["status"] != "ok":
            return dropped(f"teacher_{rating['status']}", rating["reason"])
        answer = answer_text(rating, [anchor.name for anchor in self.anchors], self.form)
        if answer is None:
            return dropped("answer_incomplete", "a justification or a line of the footer is null")
        view = self.view_maker.view(record)
        messages = score_messages(self.family, self.anchors, view.text, self.form)
        row = SftRow(render(messages), answer + END, record.record_id, record.source)
        prompt, output = self.tokenizer.encode(row.input), self.tokenizer.encode(row.output)
        num_expected = 2 * len(messages) + 2  # each turn's start and end, the answer's likewise
        num_found = sum(map(self.tokenizer.num_control_tokens, (prompt, output)))
        if num_found != num_expected:
            return dropped("control_token", f"{num_found} of them, expected {num_expected}")
        num_tokens = len(prompt) + len(output)
        if num_tokens > self.sequence_length:
            detail = f"{num_tokens:,} tokens, sequence_length={self.sequence_length:,}"
            return dropped("over_long", detail)
        return _sample(row, record, view, len(prompt), len(output))


def _sample(
    row: SftRow, record: Record, view: View, num_prompt_tokens: int, num_answer_tokens: int
) -> Sample:
    return Sample(
        row=row,
        content_hash=record.content_hash,
        num_prompt_tokens=num_prompt_tokens,
        num_answer_tokens=num_answer_tokens,
        is_whole=view.policy == "whole",
    )


def answer_text(rating: Mapping[str, Any], names: Sequence[str], form: PromptForm) -> str | None:
    """Returns the teacher's answer as the scorer is to write it; None where something is missing.

    Names and the teacher's words are quoted as the prompt quotes names: the teacher may have cited
    a control token of the record.
    """
    footer = [rating[name] for name in ("training_recommendation", "domain_tag", "brief")]
    if form.answers == "full" and None in (*rating["rationales"], *footer):
        return None
    recommendation, domain_tag, brief = map(_quoted_line, footer)
    verdict = Verdict(
        scores=tuple(rating["scores"]),
        rationales=tuple(map(_quoted_line, rating["rationales"])),
        overall=rating["overall"],
        training_recommendation=recommendation,
        domain_tag=domain_tag,
        brief=brief,
    )
    return format_reply([_quoted_line(name) for name in names], verdict, form)


def _quoted_line(text: str | None) -> str:
    return quote(one_line(text or ""))
