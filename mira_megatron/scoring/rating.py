"""Rating on anchors: what teacher and scorer are asked, and the row that is kept of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import xxhash

from mira_megatron.corpus.degraded_copies import parent_hash, way_and_parent
from mira_megatron.records import (
    DISTILL,
    RATING_SCHEMA,
    RELIABILITY,
    TEACHER_RATING_SCHEMA,
    Anchor,
    Rating,
    Record,
)
from mira_megatron.rubric import prompts, replies, rule_judge
from mira_megatron.rubric.anchor_files import read_anchors
from mira_megatron.rubric.verdict import Verdict
from mira_megatron.rubric.views import View
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.expected_scores import expected_scores
from mira_megatron.scoring.judge import Judge
from mira_megatron.scoring.questions import Reply, explained, failure_status
from mira_megatron.shards import canonical_json, write_parquet

_HASHES = 1 << 64


@dataclass(frozen=True, slots=True)
class RatedRecord:
    """A rating, and what tells on which side of the split its record is."""

    rating: Rating
    split_key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RatingForm:
    """Ratings of one source group's records on its anchors."""

    family: str
    anchors: tuple[Anchor, ...]
    judge: Judge
    reliability_fraction: float | None = None  # of a teacher's ratings; None: rows have no split
    has_copies: bool = False  # the source has degraded copies
    names: tuple[str, ...] = field(init=False)  # of the anchors, in slot order
    prompt: prompts.ScorePrompt = field(init=False)
    _prompt_key: str = field(init=False)
    _key_tail: bytes = field(init=False)  # of what content keys are made of, after the view

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(anchor.name for anchor in self.anchors))
        prompt = prompts.score_prompt(self.family, self.anchors, self.judge.form)
        object.__setattr__(self, "prompt", prompt)
        prompt_key = prompts.score_prompt_key(self.family, self.judge.form)
        object.__setattr__(self, "_prompt_key", prompt_key)
        told = [
            prompt_key,
            self.anchors[0].rubric_version,
            self.judge.model,
            self.judge.sampling,
            self.judge.config.answer_mode,
        ]
        object.__setattr__(self, "_key_tail", b"," + canonical_json(told)[1:])

    def messages(self, view_text: str) -> tuple[dict[str, str], ...]:
        """Returns the chat messages that ask for one record's ratings."""
        return self.prompt.messages(view_text)

    def judge_in_process(self, view_text: str) -> str:
        """Returns the rule judge's answer."""
        verdict = rule_judge.rate(self.family, view_text, self.names)
        return replies.format_reply(self.names, verdict, self.judge.form)

    def read(self, answer: Answer) -> replies.ParsedReply:
        """Returns what an answer says, its scores as the judge's answer mode has them.

        14 slots of 15 are data with one null.
        """
        parsed = replies.parse_reply(answer.text or "", self.names, self.judge.form)
        if not self.judge.is_expected:
            return parsed
        scores, faults = expected_scores(parsed.scores, answer.odds or ())
        status = "partial" if faults and parsed.status == "ok" else parsed.status
        if faults and not any(score is not None for score in scores):
            status = "unparsed"
        return replace(
            parsed,
            scores=scores,
            rationales=(None,) * len(scores),
            status=status,
            reason="; ".join(filter(None, (parsed.reason, *faults))) or None,
        )

    def example_answers(self) -> tuple[str, ...]:
        """Returns compact answers, one with every score; none where answers are free text."""
        if self.judge.form.answers != "compact":
            return ()
        return tuple(
            replies.format_reply(self.names, _same_score(score, len(self.names)), self.judge.form)
            for score in (*range(11), None)
        )

    def row(self, record: Record, view: View, reply: Reply) -> RatedRecord:
        """Returns the rating: what could be read, or why there is nothing."""
        answer = reply.answer
        failed_as = failure_status(answer)
        parsed = self.read(Answer(key=answer.key)) if failed_as else reply.parsed
        rating = Rating(
            record_id=record.record_id,
            content_key=self._content_key(view.text),
            model=self.judge.model,
            prompt_key=self._prompt_key,
            answer_mode=self.judge.config.answer_mode,
            scores=parsed.scores,
            rationales=parsed.rationales,
            overall=parsed.overall,
            training_recommendation=parsed.training_recommendation,
            domain_tag=parsed.domain_tag,
            brief=parsed.brief,
            status=failed_as or parsed.status,
            reason=explained(answer) if failed_as else parsed.reason,
            num_prompt_tokens=answer.num_prompt_tokens,
            num_output_tokens=answer.num_output_tokens,
            view_policy=view.policy,
            num_record_tokens=view.num_record_tokens,
            num_shown_tokens=view.num_shown_tokens,
            num_attempts=reply.num_attempts,
            raw=answer.text,
            reasoning=answer.reasoning,
        )
        return RatedRecord(rating, self._split_key(record))

    def table(self, rows: Sequence[RatedRecord]) -> pa.Table:
        """Returns rows of RATING_SCHEMA, or TEACHER_RATING_SCHEMA where there is a split."""
        columns = {
            name: [getattr(row.rating, name) for row in rows] for name in RATING_SCHEMA.names
        }
        schema = RATING_SCHEMA
        if self.reliability_fraction is not None:
            schema = TEACHER_RATING_SCHEMA
            columns["split"] = [split_of(row.split_key, self.reliability_fraction) for row in rows]
        return pa.Table.from_pydict(columns, schema=schema)

    def write(self, output: Path, rows: pa.Table) -> None:
        """Writes a part."""
        write_parquet(output, rows)

    def _split_key(self, record: Record) -> str:
        """Returns what decides a record's side of the split: degraded copies are on their parent's.

        A scorer that has learnt a record by heart knows its copies as well.
        """
        if not self.has_copies:
            return record.content_hash
        copy = way_and_parent(record.meta)
        return parent_hash(record.text) if copy is None else copy[1]

    def _content_key(self, view_text: str) -> str:
        """Returns what decides an answer: record view, prompt, anchors, model and sampling.

        It is the json_digest of the list of these, of which all but the view is written once.
        """
        return xxhash.xxh3_128_hexdigest(
            b"".join((b"[", canonical_json(view_text), self._key_tail))
        )


def _same_score(score: int | None, num_slots: int) -> Verdict:
    return Verdict(
        scores=(score,) * num_slots,
        rationales=("",) * num_slots,
        overall=None,
        training_recommendation="",
        domain_tag="",
        brief="",
    )


def split_of(split_key: str, reliability_fraction: float) -> str:
    """Returns which half a labelled record belongs to, by a hash of what it holds, or its parent.

    Records of equal content are on one side, within a source, and across sources without degraded
    copies.
    """
    place = xxhash.xxh3_64_intdigest(f"split:{split_key}".encode())
    return RELIABILITY if place < reliability_fraction * _HASHES else DISTILL


def usable_anchors(path: Path, family: str, judge: Judge) -> tuple[Anchor, ...]:
    """Returns the anchors of a file; ValueError, naming it, where the judge cannot rate on them."""
    anchors = read_anchors(path)
    if judge.config.engine == "rule_judge":
        try:
            rule_judge.check_names(family, [anchor.name for anchor in anchors])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return anchors
