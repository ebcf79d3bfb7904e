"""Have the teacher say freely what decides a record's quality, on a sample of every source.

Reads   records/<source>/part-*.parquet
Writes  judgments/<rubric>/<source>/part-*.parquet (records.JUDGMENT_SCHEMA) and answers-*.parquet
        (DISCOVERY_ANSWER_SCHEMA: one row per record asked about)
Keeps   numbers of parts and order of records; parts without a sampled record have no files
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.grouping.source_groups import source_groups
from mira_megatron.manifest import Counts
from mira_megatron.records import DISCOVERY_ANSWER_SCHEMA, JUDGMENT_SCHEMA, Judgment, Record
from mira_megatron.rubric import rule_judge
from mira_megatron.rubric.discovery_prompts import discover_messages, discover_prompt_key
from mira_megatron.rubric.discovery_replies import (
    ParsedProposals,
    format_proposals,
    parse_proposals,
)
from mira_megatron.rubric.given_anchors import given_anchors
from mira_megatron.rubric.teacher import taught_stage
from mira_megatron.rubric.views import View
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.judge import Judge, judge_fingerprint
from mira_megatron.scoring.judged_parts import sampled_parts
from mira_megatron.scoring.judging import judge_parts
from mira_megatron.scoring.questions import Reply, explained, failure_status
from mira_megatron.shards import write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 2
_ANSWERS, _JUDGMENTS = "answers", "part"
_CUT_OFF = "cut off at max_tokens"
# Of an answer, until it is written; judgments have a file of their own.
_JUDGMENTS_OF = pa.field("judgments", pa.list_(pa.struct(list(JUDGMENT_SCHEMA))))


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscoverConfig:
    """How much the teacher is shown."""

    records_per_source: int

    def __post_init__(self) -> None:
        if self.records_per_source < 1:
            raise ValueError(f"records_per_source={self.records_per_source} must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscoverSettings:
    """What one source's unit needs."""

    source: str
    records_per_source: int
    seed: int
    form: DiscoveryForm


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscoveryForm:
    """Free-form judging of one source's records."""

    source: str
    family: str
    judge: Judge

    def messages(self, view_text: str) -> tuple[dict[str, str], ...]:
        """Returns the chat messages that ask what decides one record's quality."""
        return discover_messages(self.family, view_text)

    def judge_in_process(self, view_text: str) -> str:
        """Returns the rule judge's answer."""
        return format_proposals(self.family, rule_judge.propose(self.family, view_text))

    def example_answers(self) -> tuple[str, ...]:
        """Returns none: nothing of a free-form answer is known in advance."""
        return ()

    def read(self, answer: Answer) -> ParsedProposals:
        """Returns what an answer says; of one cut off at max_tokens, the lines that are whole."""
        text = answer.text or ""
        if answer.finish_reason != "length":
            return parse_proposals(text, self.family)
        parsed = parse_proposals(text.rpartition("\n")[0], self.family)
        reasons = filter(None, (_CUT_OFF, parsed.reason))
        status = "partial" if parsed.status == "ok" else parsed.status
        return replace(parsed, status=status, reason="; ".join(reasons))

    def row(
        self, record: Record, view: View, reply: Reply
    ) -> tuple[dict[str, Any], list[Judgment]]:
        """Returns the answer's row, and the judgments that could be read from it."""
        answer = reply.answer
        failed_as = failure_status(answer)
        parsed = parse_proposals("", self.family) if failed_as else reply.parsed
        judgments = [
            Judgment(
                record_id=record.record_id,
                source=self.source,
                part=proposal.part,
                dimension=proposal.dimension,
                score=proposal.score,
                reason=proposal.reason,
                model=self.judge.model,
                prompt_key=discover_prompt_key(self.family),
            )
            for proposal in parsed.proposals
        ]
        answered = {
            "record_id": record.record_id,
            "num_judgments": len(judgments),
            "status": failed_as or parsed.status,
            "reason": explained(answer) if failed_as else parsed.reason,
            "view_policy": view.policy,
            "num_record_tokens": view.num_record_tokens,
            "num_shown_tokens": view.num_shown_tokens,
            "num_attempts": reply.num_attempts,
            "num_prompt_tokens": answer.num_prompt_tokens,
            "num_output_tokens": answer.num_output_tokens,
            "raw": answer.text,
            "reasoning": answer.reasoning,
        }
        return answered, judgments

    def table(self, rows: Sequence[tuple[dict[str, Any], list[Judgment]]]) -> pa.Table:
        """Returns rows of DISCOVERY_ANSWER_SCHEMA, and with each what was read from it."""
        answers = pa.Table.from_pylist([row for row, _ in rows], schema=DISCOVERY_ANSWER_SCHEMA)
        judgments = [[asdict(judgment) for judgment in of_record] for _, of_record in rows]
        return answers.append_column(_JUDGMENTS_OF, pa.array(judgments, _JUDGMENTS_OF.type))

    def write(self, output: Path, rows: pa.Table) -> None:
        """Writes the judgments of a part, and last the answers they were read from."""
        judgments = pc.list_flatten(rows[_JUDGMENTS_OF.name]).combine_chunks()
        columns = judgments.flatten()
        write_parquet(_judgments(output), pa.Table.from_arrays(columns, schema=JUDGMENT_SCHEMA))
        write_parquet(output, rows.drop_columns([_JUDGMENTS_OF.name]))


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source that a group without given anchors is founded on.

    None without a section `discover`.
    """
    if "discover" not in recipe.values:
        return []
    config, judge = taught_stage(recipe, "discover", DiscoverConfig)
    return [
        _unit(recipe, config, judge, source, group.family)
        for group in source_groups(recipe).values()
        if given_anchors(recipe, group.name) is None
        # Whoever joined later has no part in the group's anchors.
        for source in group.members
        if source in group.founders
    ]


def _unit(recipe: Recipe, config: DiscoverConfig, judge: Judge, source: str, family: str) -> Unit:
    return Unit(
        stage="discover",
        name=source,
        folder=layout.judgments(recipe.rubric, source),
        version=VERSION,
        config={
            **judge_fingerprint(judge),
            "records_per_source": config.records_per_source,
            "prompt_key": discover_prompt_key(family),
            "seed": recipe.seed,
        },
        upstream=(layout.records(source),),
        # Anchors rest on what was said of the records of that day; nothing is asked again.
        outlives=(layout.records(source),),
        work="mira_megatron.rubric.discover:discover",
        settings=DiscoverSettings(
            source=source,
            records_per_source=config.records_per_source,
            seed=recipe.seed,
            form=DiscoveryForm(source=source, family=family, judge=judge),
        ),
    )


def discover(workspace: Workspace, settings: DiscoverSettings) -> WorkResult:
    """Writes the judgments of one source's sample."""
    parts = sampled_parts(
        workspace,
        settings.source,
        settings.records_per_source,
        seed=settings.seed,
        purpose="discover",
        stem=_ANSWERS,
    )
    counted = judge_parts(workspace, parts, settings.form, settings.form.judge)
    outcomes: Counter[str] = sum(counted, Counter())
    rows = {part.output.name: part.num_records for part in parts}
    for part in parts:
        judgments = _judgments(part.output)
        rows[judgments.name] = pq.read_metadata(judgments).num_rows
    num_judgments = sum(rows.values()) - outcomes.total()
    return WorkResult(
        counts=Counts(
            num_in=outcomes.total(),
            num_out=num_judgments,
            totals=dict(sorted(outcomes.items())),
        ),
        rows=rows,
    )


def _judgments(answers: Path) -> Path:
    """Returns the file of the judgments that were read from a part's answers."""
    return answers.with_name(f"{_JUDGMENTS}{answers.name.removeprefix(_ANSWERS)}")
