"""The work behind `mira eval`, apart from its settings: it asks a model and runs what it wrote."""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from contextlib import ExitStack

from mira_megatron import layout
from mira_megatron.endpoints import api_key
from mira_megatron.eval.benchmark import Style
from mira_megatron.eval.eval_config import ENDPOINT, SECTION
from mira_megatron.eval.evaluate_tool import Evaluated, EvaluateOptions, Work, evaluate
from mira_megatron.eval.evaluation import EvalSettings
from mira_megatron.eval.generation.answerer import Answerer, EndpointAnswerer
from mira_megatron.eval.generation.asking import Asked
from mira_megatron.eval.generation.generations import Generation, read_generations
from mira_megatron.eval.generation.local import LocalAnswerer
from mira_megatron.eval.settled_files import settle
from mira_megatron.manifest import Counts
from mira_megatron.scoring.generation import LocalModel
from mira_megatron.stage import WorkResult, Workspace

logger = logging.getLogger(__name__)


def evaluate_model(workspace: Workspace, settings: EvalSettings) -> WorkResult:
    """Asks one model a suite's benchmarks, grades the answers, and counts them.

    Raises ValueError where a benchmark failed, with the others' files in place, or this machine
    failed on some programs: what was answered and graded is there when it is run again.
    """
    if not (settings.export / "config.json").is_file():
        raise ValueError(
            f"{settings.export}: no model to be asked (no config.json). Its training says in its "
            "log why it left no export; a tokenizer that cuts text as Qwen's does can be exported"
        )
    with ExitStack() as leaving:
        answerer = _answerer(workspace, settings, leaving)
        evaluated = evaluate(_options(workspace, settings, answerer))
    _check(workspace, evaluated)
    label = workspace.unit.label
    for outcome in evaluated.outcomes:
        for score in outcome.scores:
            logger.info(
                "%s: %s pass@1 %.2f %% of %s tasks%s",
                label,
                score.benchmark,
                score.pass_at_1,
                f"{score.num_tasks:,}",
                "" if settings.config.limit is None else ", the first of all",
            )
    rows = settle(workspace.folder, evaluated.works)
    return WorkResult(counts=_counts(workspace, evaluated.works), rows=rows)


def _answerer(workspace: Workspace, settings: EvalSettings, leaving: ExitStack) -> Answerer:
    config = settings.config
    if config.engine == ENDPOINT:
        return EndpointAnswerer(
            Asked(
                endpoints=tuple(config.endpoints),
                model=settings.model,
                max_in_flight=config.max_in_flight,
                timeout_seconds=config.timeout_seconds,
                api_key=api_key(config.api_key_env, workspace.resources.secrets, SECTION),
            )
        )
    if config.num_threads is not None:
        threads = importlib.import_module("mira_megatron.training.cpu_threads")
        leaving.enter_context(threads.cpu_threads(config.num_threads))
    model = LocalModel(
        folder=settings.export,
        dtype=config.dtype,
        max_model_len=config.max_model_len,
        seed=0,  # of the engine; each answer has one of its own
        batch_size=config.batch_size,
        gpu_memory_utilization=config.gpu_memory_utilization,
        tensor_parallel_size=config.tensor_parallel_size,
    )
    answerer = LocalAnswerer(settings.model, config.engine, model)
    leaving.callback(answerer.close)
    return answerer


def _options(workspace: Workspace, settings: EvalSettings, answerer: Answerer) -> EvaluateOptions:
    return EvaluateOptions(
        suite=settings.suite,
        output=workspace.folder,
        answerer=answerer,
        style=Style(settings.config.style),
        benchmarks=settings.benchmarks,
        limit=settings.config.limit,
        data_folder=settings.data_folder,
        # Gold values and verdicts by content: arms often write the same program.
        cache=layout.eval_cache(workspace.run.folder),
        min_isolation=settings.config.min_isolation,
        workers=workspace.resources.workers,
        is_graded=True,
    )


def _check(workspace: Workspace, evaluated: Evaluated) -> None:
    problems = [
        f"{outcome.entry.name}: {outcome.problem}"
        for outcome in evaluated.outcomes
        if outcome.problem
    ]
    num_unknown = sum(
        score.num_unknown for outcome in evaluated.outcomes for score in outcome.scores
    )
    if num_unknown:
        problems.append(
            f"{num_unknown:,} verdicts say nothing about the program, since this machine failed"
        )
    if problems:
        raise ValueError(
            f"{workspace.unit.label}: {'; '.join(problems)}. Answers and verdicts that came are "
            "kept: the same command goes on from there"
        )


def _counts(workspace: Workspace, works: tuple[Work, ...]) -> Counts:
    answers: list[Generation] = []
    for work in works:
        answers += read_generations(work.path(workspace.folder)).values()
    reasons = Counter(answer.reason for answer in answers if answer.reason is not None)
    return Counts(
        num_in=len(answers),
        num_out=len(answers) - reasons.total(),
        dropped=dict(sorted(reasons.items())),
        totals={
            "num_truncated": sum(answer.to_sample().is_truncated for answer in answers),
            "num_output_tokens": sum(answer.num_output_tokens or 0 for answer in answers),
        },
    )
