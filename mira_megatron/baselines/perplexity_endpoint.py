"""The losses of perplexity from a vLLM server: `engine: endpoint`.

Windows are cut here, with the model's own tokenizer, and sent as token ids; a record is one request
with all its windows. So server and transformers measure the same tokens, and their losses are equal
within 1e-3 nats. Requests, retries, ceilings, kept answers, sharing and `--reparse` are the judge's
(scoring/judging.py).

Reads   records/<source>/part-*.parquet; a tokenizer.json
Writes  baselines/<name>/losses/<source>/part-*.parquet (SERVED_LOSS_SCHEMA)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from mira_megatron import layout
from mira_megatron.baselines.perplexity_config import PerplexityConfig
from mira_megatron.baselines.reference_tokens import reference_tokens
from mira_megatron.baselines.token_windows import encoded_for, windows_of
from mira_megatron.baselines.trained_text import trained_text
from mira_megatron.config import Recipe
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.records import Record
from mira_megatron.rubric.views import View
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.judge import Judge, make_judge
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.judging import judge_source
from mira_megatron.scoring.prompt_losses import (
    PromptLosses,
    SummedLoss,
    prompt_text,
    summed_loss,
)
from mira_megatron.scoring.questions import Reply, explained, failure_status
from mira_megatron.shards import file_digest, write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 1

SERVED_LOSS_SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("loss", pa.float64()),  # nats per target; null where there is none
        pa.field("num_targets", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # ok, too_long, refused, failed
        pa.field("reason", pa.string()),  # of a request that failed: kind, and the server's words
        pa.field("num_attempts", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossForm:
    """The windows of one family's records, and the loss that a server has of them."""

    family: str
    config: PerplexityConfig
    tokenizer: Path

    def messages(self, view_text: str) -> tuple[dict[str, str], ...]:
        """Returns a record's windows of token ids, as the one message there is."""
        text = trained_text(self.family, view_text)
        window, stride = self.config.window_tokens, self.config.stride_tokens
        (ids,) = encoded_for([text], reference_tokens(self.tokenizer).encode, window, stride)
        windows = windows_of(ids, window, stride)
        return ({"role": "user", "content": prompt_text([each.ids for each in windows])},)

    def judge_in_process(self, view_text: str) -> str:
        """Refuses: there are no rules that measure a loss."""
        raise AssertionError("engine=endpoint alone is asked for losses")

    def example_answers(self) -> tuple[str, ...]:
        """Returns none: answers are numbers."""
        return ()

    def read(self, answer: Answer) -> SummedLoss:
        """Returns the loss that an answer holds."""
        return summed_loss(answer.text or "")

    def row(self, record: Record, view: View, reply: Reply) -> dict[str, Any]:
        """Returns what is kept of a reply."""
        failed_as = failure_status(reply.answer)
        loss = SummedLoss(nats=0.0, num_targets=0) if failed_as else reply.parsed
        return {
            "record_id": record.record_id,
            "loss": loss.nats / loss.num_targets if loss.num_targets else None,
            "num_targets": loss.num_targets,
            "status": failed_as or "ok",
            "reason": explained(reply.answer) if failed_as else None,
            "num_attempts": reply.num_attempts,
        }

    def table(self, rows: Sequence[dict[str, Any]]) -> pa.Table:
        """Returns rows of SERVED_LOSS_SCHEMA."""
        return pa.Table.from_pylist(list(rows), schema=SERVED_LOSS_SCHEMA)

    def write(self, output: Path, rows: pa.Table) -> None:
        """Writes a part."""
        write_parquet(output, rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedSettings:
    """What asking about one source needs."""

    source: str
    form: LossForm
    judge: Judge


def served_loss_units(
    recipe: Recipe,
    baseline: str,
    config: PerplexityConfig,
    asked: JudgeConfig,
    sources: Sequence[str],
    where: str,
) -> list[Unit]:
    """Returns one unit per source that has a server measure it.

    Raises FileNotFoundError where the tokenizer is not.
    """
    tokenizer = _tokenizer_file(recipe, config, where)
    context = 0 if config.stride_tokens is None else config.window_tokens - config.stride_tokens
    judge = replace(make_judge(recipe, asked), losses=PromptLosses(context_tokens=context))
    shown: Mapping[str, Any] = {
        "method": "perplexity",
        "engine": config.engine,
        "model": config.model,
        "tokenizer": file_digest(tokenizer),
        "window_tokens": config.window_tokens,
        "stride_tokens": config.stride_tokens,
        "request_fields": asked.request_fields,
    }
    families = {
        source: descriptor.family for source, (descriptor, _) in recipe_sources(recipe).items()
    }
    return [
        Unit(
            stage="baseline",
            name=f"{baseline}.{source}.losses",
            folder=layout.losses(baseline, source),
            version=VERSION,
            config=shown,
            upstream=(layout.records(source),),
            can_be_shared=True,
            can_be_reparsed=True,
            work="mira_megatron.baselines.perplexity_endpoint:ask",
            settings=ServedSettings(
                source=source,
                form=LossForm(family=families[source], config=config, tokenizer=tokenizer),
                judge=judge,
            ),
        )
        for source in sources
    ]


def ask(workspace: Workspace, settings: ServedSettings) -> WorkResult:
    """Writes the losses of one source's records; ValueError where too many requests fail."""
    return judge_source(workspace, settings.source, settings.form, settings.judge)


def _tokenizer_file(recipe: Recipe, config: PerplexityConfig, where: str) -> Path:
    assert config.tokenizer is not None, "PerplexityConfig refuses engine=endpoint without it"
    path = recipe.path_of(config.tokenizer)
    file = path / layout.TOKENIZER_FILE if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{where}.tokenizer: {file}: no such file. Name the tokenizer.json of the model that "
            f"is served as {config.model}"
        )
    return file
