"""DataMan: records ranked by the overall score of a model that rates fourteen criteria.

Reads   records/<source>/part-*.parquet
Writes  baselines/<name>/answers/<source>/part-*.parquet: domain, fourteen scores, the raw answer
        record_scores/<name>/<source>/part-*.parquet: the overall score, 1-5; null with the status
        of an answer that could not be had or read

Decoding is the published one (temperature 0, at most 29 tokens). Where this departs from the
published selection, which keeps texts of overall 5, draws at random within source and domain, and
repeats texts of cells that are short: an arm ranks by overall score, 5 first, then 4 and so on
until its budget is spent; equal scores are ordered by a hash; nothing is repeated; and the scope is
the arm's (source, as the nearest), without cells of domains.

With `engine: rule_judge` there is no DataMan: the rule judge's overall score is written in its
form, under its own name, as all fourteen scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer

from mira_megatron import layout
from mira_megatron.baselines.dataman_prompt import (
    CRITERIA,
    END_TOKENS,
    MAX_TOKENS,
    MOST_TOKENS,
    PROMPT_KEY,
    CutTokens,
    DatamanReply,
    dataman_messages,
    format_dataman,
    parse_dataman,
)
from mira_megatron.baselines.score_parts import Part, Scores, write_scores
from mira_megatron.baselines.trained_text import trained_text
from mira_megatron.config import Recipe, typed
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.records import Record
from mira_megatron.rubric import rule_judge
from mira_megatron.rubric.views import View
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.judge import Judge, judge_fingerprint, make_judge
from mira_megatron.scoring.judge_config import JudgeConfig, check_has_model
from mira_megatron.scoring.judging import judge_source
from mira_megatron.scoring.questions import Reply, explained, failure_status
from mira_megatron.shards import file_digest, write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 1
_PUBLISHED = {"temperature": 0.0, "top_p": 1.0, "max_tokens": MAX_TOKENS}
_OVERALL = CRITERIA.index("Overall Score")
_CODING = "H"

ANSWER_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("prompt_key", pa.string(), nullable=False),
        pa.field("domain", pa.string()),
        pa.field("scores", pa.list_(pa.int8())),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("num_prompt_tokens", pa.int64()),
        pa.field("num_output_tokens", pa.int64()),
        pa.field("num_attempts", pa.int64(), nullable=False),
        pa.field("raw", pa.large_string()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatamanForm:
    """Scores of one family's records in DataMan's form."""

    family: str
    judge: Judge
    tokenizer: Path | None  # DataMan's own; None: texts are cut by characters alone

    def messages(self, view_text: str) -> tuple[dict[str, str], ...]:
        """Returns the chat messages that ask for one record's scores."""
        cut = None if self.tokenizer is None else _cutter(self.tokenizer)
        return dataman_messages(trained_text(self.family, view_text), cut)

    def judge_in_process(self, view_text: str) -> str:
        """Returns the rule judge's overall score in DataMan's form."""
        names = rule_judge.dimension_names(self.family)[:1]
        overall = rule_judge.rate(self.family, view_text, names).overall
        if overall is None:
            return ""
        score = 1 + int(4 * overall / 100 + 0.5)
        return format_dataman(_CODING, (score,) * len(CRITERIA))

    def example_answers(self) -> tuple[str, ...]:
        """Returns one answer with every score: all are pieced together from them."""
        return tuple(format_dataman("O", (score,) * len(CRITERIA)) for score in range(1, 6))

    def read(self, answer: Answer) -> DatamanReply:
        """Returns what an answer says."""
        return parse_dataman(answer.text or "")

    def row(self, record: Record, view: View, reply: Reply) -> dict[str, Any]:
        """Returns what is kept of an answer."""
        answer = reply.answer
        failed_as = failure_status(answer)
        parsed = DatamanReply(domain=None, scores=None) if failed_as else reply.parsed
        return {
            "record_id": record.record_id,
            "model": self.judge.model,
            "prompt_key": PROMPT_KEY,
            "domain": parsed.domain,
            "scores": parsed.scores,
            "status": failed_as or parsed.status,
            "reason": explained(answer) if failed_as else parsed.reason,
            "num_prompt_tokens": answer.num_prompt_tokens,
            "num_output_tokens": answer.num_output_tokens,
            "num_attempts": reply.num_attempts,
            "raw": answer.text,
        }

    def table(self, rows: Sequence[dict[str, Any]]) -> pa.Table:
        """Returns rows of ANSWER_SCHEMA."""
        return pa.Table.from_pylist(list(rows), schema=ANSWER_SCHEMA)

    def write(self, output: Path, rows: pa.Table) -> None:
        """Writes a part."""
        write_parquet(output, rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class AskSettings:
    """What asking about one source needs."""

    source: str
    form: DatamanForm


def dataman_units(
    recipe: Recipe, baseline: str, values: Mapping[str, Any], where: str
) -> list[Unit]:
    """Returns one unit per source that asks about it, then one that takes its scores."""
    settings = dict(values)
    given = settings.pop("dataman_tokenizer", None)
    published = {} if settings.get("engine") == "rule_judge" else _PUBLISHED
    config = typed(JudgeConfig, {**published, **settings}, where=where)
    check_has_model(config, where)
    if config.answer_mode != "full":
        raise ValueError(f"{where}: answer_mode={config.answer_mode}: DataMan has one form, full")
    judge = make_judge(recipe, config)
    tokenizer = None if given is None else recipe.path_of(str(given))
    if tokenizer is not None and not tokenizer.is_file():
        raise FileNotFoundError(f"{where}.dataman_tokenizer: {tokenizer}: no such tokenizer.json")
    shown = {
        **judge_fingerprint(judge),
        "method": "dataman",
        "prompt_key": PROMPT_KEY,
        "dataman_tokenizer": None if tokenizer is None else file_digest(tokenizer),
    }
    units = []
    for source, (descriptor, _) in recipe_sources(recipe).items():
        form = DatamanForm(family=descriptor.family, judge=judge, tokenizer=tokenizer)
        answers = layout.baseline_answers(baseline, source)
        units.append(
            Unit(
                stage="baseline",
                name=f"{baseline}.{source}.answers",
                folder=answers,
                version=VERSION,
                config=shown,
                upstream=(layout.records(source),),
                can_be_shared=True,
                can_be_reparsed=True,
                work="mira_megatron.baselines.dataman:ask",
                settings=AskSettings(source=source, form=form),
            )
        )
        units.append(
            Unit(
                stage="baseline",
                name=f"{baseline}.{source}",
                folder=layout.record_scores(baseline, source),
                version=VERSION,
                config={"method": "dataman"},
                upstream=(answers,),
                waits_for=(answers,),
                work="mira_megatron.baselines.dataman:take_overall",
                settings=answers,
            )
        )
    return units


def ask(workspace: Workspace, settings: AskSettings) -> WorkResult:
    """Writes the answers about one source's records."""
    return judge_source(workspace, settings.source, settings.form, settings.form.judge)


def take_overall(workspace: Workspace, answers: str) -> WorkResult:
    """Writes the record scores of one source."""
    return write_scores(workspace, answers, _overall, None)


def _overall(part: Part, settings: None) -> Scores:
    table = part.rows(["record_id", "scores", "status"])
    scores = [each and float(each[_OVERALL]) for each in table["scores"].to_pylist()]
    statuses = table["status"].to_pylist()
    return Scores(
        record_ids=table["record_id"],
        scores=scores,
        reasons=[
            status if score is None else None
            for score, status in zip(scores, statuses, strict=True)
        ],
    )


@lru_cache(maxsize=4)
def _cutter(tokenizer_file: Path) -> CutTokens:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))

    def cut(text: str) -> str:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) <= MOST_TOKENS:
            return text
        ends = tokenizer.decode_batch([ids[:END_TOKENS], ids[-END_TOKENS:]])
        return "...".join(ends)

    return cut
