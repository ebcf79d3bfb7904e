"""Score every record on the anchors of a rubric.

Reads   records/<source>/part-*.parquet
Writes  ratings/<rubric>/<source>/part-*.parquet (records.RATING_SCHEMA)
Keeps   part names, ids and order of the input; one row per record, failures included
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.config import Recipe, check_name, fingerprinted
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.manifest import Counts
from mira_megatron.records import (
    RATING_SCHEMA,
    RECORD_SCHEMA,
    Rating,
    Record,
    records_from_table,
)
from mira_megatron.rubric import prompts, replies, rule_judge
from mira_megatron.scoring.endpoint import Answer, EndpointSettings, Request, answer_all
from mira_megatron.shards import json_digest, map_shards, read_part, write_parquet
from mira_megatron.stage import Unit, WorkResult, Workspace

VERSION = 1
ENGINES = ("rule_judge", "endpoint")
ANSWER_MODE = "full"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    """Who scores, on which rubric, and how an endpoint is asked."""

    rubric: str  # name of the ratings made here
    engine: str  # one of ENGINES
    model: str | None = None  # endpoint only, as the following
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    endpoints: list[str] = field(default_factory=list, metadata={"execution": True})
    api_key_env: str | None = field(default=None, metadata={"execution": True})
    max_in_flight: int = field(default=64, metadata={"execution": True})
    timeout_seconds: float = field(default=600.0, metadata={"execution": True})
    max_retries: int = field(default=5, metadata={"execution": True})
    max_failed_fraction: float = field(default=0.01, metadata={"execution": True})

    def __post_init__(self) -> None:
        check_name("rubric", self.rubric)
        if self.engine not in ENGINES:
            raise ValueError(f"engine={self.engine!r} must be one of {', '.join(ENGINES)}")
        for name in ("model", "temperature", "top_p", "max_tokens", "endpoints"):
            is_given = getattr(self, name) not in (None, [])
            if self.engine == "endpoint" and not is_given:
                raise ValueError(f"engine=endpoint needs {name}")
            if self.engine == "rule_judge" and is_given:
                raise ValueError(f"{name} is for engine=endpoint; engine=rule_judge takes none")
        if not 0 <= self.max_failed_fraction <= 1:
            raise ValueError(f"max_failed_fraction={self.max_failed_fraction} must be in [0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreSettings:
    """What one source's unit needs."""

    source: str
    family: str
    config: ScoreConfig
    seed: int | None  # None where nothing is sampled


@dataclass(frozen=True, kw_only=True, slots=True)
class _PartTask:
    records: Path
    digest: str
    output: Path
    settings: ScoreSettings
    api_key: str | None = field(default=None, repr=False)


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source."""
    config = recipe.section("score", ScoreConfig)
    return [
        Unit(
            stage="score",
            name=source,
            folder=layout.ratings(config.rubric, source),
            version=VERSION,
            config={
                **fingerprinted(config),
                "model": _model(config),
                "answer_mode": ANSWER_MODE,
                "anchors": rule_judge.anchor_names(source_config.family),
                "prompt_key": prompts.prompt_key(),
                "seed": _sampling_seed(config, recipe.seed),
            },
            upstream=(layout.records(source),),
            work="mira_megatron.scoring.score:score",
            settings=ScoreSettings(
                source=source,
                family=source_config.family,
                config=config,
                seed=_sampling_seed(config, recipe.seed),
            ),
        )
        for source, (source_config, _) in recipe_sources(recipe).items()
    ]


def score(workspace: Workspace, settings: ScoreSettings) -> WorkResult:
    """Writes the ratings of one source."""
    tasks = _part_tasks(workspace, settings)
    match settings.config.engine:
        case "rule_judge":
            workers = workspace.resources.workers
        case _:
            workers = 1  # one process keeps many requests in flight
    counted = list(
        map_shards(_score_part, tasks, workers=workers, title=f"score {settings.source}")
    )
    statuses: Counter[str] = sum(counted, Counter())
    num_records = statuses.total()
    return WorkResult(
        counts=Counts(
            num_in=num_records, num_out=num_records, totals=dict(sorted(statuses.items()))
        ),
        rows={task.output.name: part.total() for task, part in zip(tasks, counted, strict=True)},
    )


def _part_tasks(workspace: Workspace, settings: ScoreSettings) -> list[_PartTask]:
    api_key_env = settings.config.api_key_env
    api_key = workspace.resources.secrets.get(api_key_env) if api_key_env else None
    if api_key_env and api_key is None:
        raise ValueError(f"score.api_key_env names {api_key_env}, which is not set")
    return [
        _PartTask(
            records=path,
            digest=part.digest,
            output=workspace.folder / part.path,
            settings=settings,
            api_key=api_key,
        )
        for path, part in workspace.upstream_parts(layout.records(settings.source), ".parquet")
    ]


def _score_part(task: _PartTask) -> Counter[str]:
    """Returns how many records of one part ended with which status."""
    if task.output.is_file():
        statuses = pq.read_table(task.output, columns=["status"])["status"]
        return Counter(statuses.to_pylist())
    records = records_from_table(read_part(task.records, task.digest, RECORD_SCHEMA.names))
    match task.settings.config.engine:
        case "rule_judge":
            ratings = [_judge(task.settings, record) for record in records]
        case _:
            ratings = asyncio.run(_ask(task, records))
    _check_failures(task, ratings)
    rows = [asdict(rating) for rating in ratings]
    write_parquet(task.output, pa.Table.from_pylist(rows, schema=RATING_SCHEMA))
    return Counter(rating.status for rating in ratings)


def _judge(settings: ScoreSettings, record: Record) -> Rating:
    """Rates in process; through the reply's text, so that a server's ratings are the same."""
    view = prompts.record_view(record)
    names = rule_judge.anchor_names(settings.family)
    reply = replies.format_reply(names, rule_judge.judge(settings.family, view))
    return _rating(settings, Answer(key=record.record_id, text=reply), view)


async def _ask(task: _PartTask, records: list[Record]) -> list[Rating]:
    """Asks the endpoints about every record; the ratings come back in the records' order."""
    settings = task.settings
    names = rule_judge.anchor_names(settings.family)
    views = {record.record_id: prompts.record_view(record) for record in records}
    requests = (
        Request(key=name, messages=prompts.score_messages(settings.family, names, view))
        for name, view in views.items()
    )
    ratings: dict[str, Rating] = {}
    endpoint_settings = _endpoint_settings(settings, task.api_key)
    async for answer in answer_all(requests, settings.config.endpoints, endpoint_settings):
        ratings[answer.key] = _rating(settings, answer, views[answer.key])
    return [ratings[record.record_id] for record in records]


def _sampling_seed(config: ScoreConfig, seed: int) -> int | None:
    return seed if config.engine == "endpoint" else None


def _model(config: ScoreConfig) -> str:
    return config.model or rule_judge.MODEL_NAME


def _endpoint_settings(settings: ScoreSettings, api_key: str | None) -> EndpointSettings:
    config = settings.config
    assert config.model is not None
    assert config.temperature is not None
    assert config.top_p is not None
    assert config.max_tokens is not None
    return EndpointSettings(
        model=config.model,
        temperature=config.temperature,
        top_p=config.top_p,
        max_tokens=config.max_tokens,
        seed=settings.seed,
        max_in_flight=config.max_in_flight,
        timeout_seconds=config.timeout_seconds,
        max_retries=config.max_retries,
        api_key=api_key,
    )


def _rating(settings: ScoreSettings, answer: Answer, view: str) -> Rating:
    """Returns the row for one answer: what could be read, or why there is nothing."""
    names = rule_judge.anchor_names(settings.family)
    parsed = replies.parse_reply(answer.text or "", names)
    failed = answer.failure is not None
    return Rating(
        record_id=answer.key,
        content_key=_content_key(settings, names, view),
        model=_model(settings.config),
        prompt_key=prompts.prompt_key(),
        answer_mode=ANSWER_MODE,
        scores=parsed.scores,
        rationales=parsed.rationales,
        overall=parsed.overall,
        training_recommendation=parsed.training_recommendation,
        domain_tag=parsed.domain_tag,
        brief=parsed.brief,
        status="failed" if failed else parsed.status,
        reason=f"{answer.failure}: {answer.failure_detail}" if failed else parsed.reason,
        num_prompt_tokens=answer.num_prompt_tokens,
        num_output_tokens=answer.num_output_tokens,
        raw=answer.text,
    )


def _content_key(settings: ScoreSettings, names: tuple[str, ...], view: str) -> str:
    """Returns what decides an answer: record view, prompt, anchors, model and sampling."""
    config = settings.config
    sampling = [config.temperature, config.top_p, config.max_tokens, settings.seed]
    asked = [prompts.prompt_key(), names, _model(config), sampling, ANSWER_MODE]
    return json_digest([view, asked])


def _check_failures(task: _PartTask, ratings: list[Rating]) -> None:
    """Raises ValueError, before the part is written, when too many records got no rating.

    What was answered in earlier parts stays, and the next run asks again for this one.
    """
    useless = [rating for rating in ratings if rating.status in ("failed", "unparsed")]
    limit = task.settings.config.max_failed_fraction
    if len(useless) <= limit * len(ratings):
        return
    raise ValueError(
        f"source {task.settings.source}: {len(useless):,} of {len(ratings):,} records of "
        f"{task.records} got no rating, more than score.max_failed_fraction={limit} allows. "
        f"The first: {useless[0].status}, {useless[0].reason}. Repair the endpoint and run the "
        "same command again; finished parts are kept."
    )
