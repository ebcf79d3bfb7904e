"""`mira evaluate`: a suite, asked of endpoints and graded; one model, one folder.

Reads   a suite, its benchmarks' data files
Writes  OUTPUT/suite.json, what was asked of whom
        OUTPUT/<benchmark>/generations.jsonl (generations.py), then what `mira grade` writes

A benchmark that fails does not lose the others: it is named at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mira_megatron.eval.benchmark import Benchmark, Style
from mira_megatron.eval.evaluate_table import Outcome, print_table
from mira_megatron.eval.generation.answerer import Answerer
from mira_megatron.eval.generation.generations import (
    GENERATIONS_FILE,
    GenerationFile,
    generated_samples,
    read_generations,
    textless,
)
from mira_megatron.eval.generation.planned import Planned, asked_of, planned_answers
from mira_megatron.eval.generation.served import Served, check_room
from mira_megatron.eval.generation.suite_file import (
    SuiteFile,
    check_same_model,
    check_same_weights,
    read_suite_file,
)
from mira_megatron.eval.grade_tool import GradeOptions, grade_samples
from mira_megatron.eval.sandbox.best import best_sandbox
from mira_megatron.eval.suite import Entry, Suite, load_suite, open_benchmark
from mira_megatron.file_lock import held_lock

logger = logging.getLogger(__name__)

CANNOT, UNKNOWN = 2, 1  # exit codes: some benchmarks failed; this machine failed on some programs


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateOptions:
    """What `mira evaluate` was told."""

    suite: Path
    output: Path
    answerer: Answerer | None  # None: nothing is generated
    style: Style | None  # None: as suite.json has it
    benchmarks: tuple[str, ...]  # () is all of the suite's
    limit: int | None  # tasks of each benchmark
    data_folder: Path | None
    cache: Path | None  # None: OUTPUT/cache
    min_isolation: int
    workers: int
    is_graded: bool
    has_controls: bool = True  # known programs are graded before a score is believed

    @property
    def cache_folder(self) -> Path:
        """Returns where gold values and verdicts by content are kept."""
        return self.cache if self.cache is not None else self.output / "cache"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One benchmark, opened, with the answers that it needs."""

    entry: Entry
    benchmark: Benchmark
    planned: tuple[Planned, ...]

    def path(self, output: Path) -> Path:
        """Returns where its answers lie in the folder of an evaluation."""
        return output / self.entry.name / GENERATIONS_FILE


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """What became of every benchmark, and the work of those that could be opened."""

    suite: Suite
    outcomes: tuple[Outcome, ...]
    works: tuple[Work, ...]


def run(console: Console, options: EvaluateOptions) -> int:
    """Generates, grades, prints the scores; returns 0, 2 where a benchmark failed, or 1 where this
    machine failed on some programs.

    Raises as `evaluate` does.
    """
    evaluated = evaluate(options)
    print_table(
        console,
        evaluated.suite,
        evaluated.outcomes,
        is_graded=options.is_graded,
        limit=options.limit,
    )
    return _exit_code(evaluated.outcomes)


def evaluate(options: EvaluateOptions) -> Evaluated:
    """Generates and grades, and returns what became of it.

    Raises ValueError or FileNotFoundError for what the user can fix before anything is asked.
    """
    suite = load_suite(options.suite, options.data_folder)
    names = options.benchmarks or tuple(suite.entries)
    entries = [suite.entry(name) for name in names]
    options.output.mkdir(parents=True, exist_ok=True)
    refusal = f"{options.output}: another process evaluates into it; wait for it to end"
    with held_lock(options.output / ".lock", refusal):
        style = _style(options)
        outcomes = {entry.name: Outcome(entry=entry) for entry in entries}
        works = _opened(options, suite, entries, style, outcomes)
        if options.answerer is not None:
            served = _write_suite_file(options, options.answerer, suite, style, works)
            for work in works:
                _generate(options, options.answerer, served, work, outcomes[work.entry.name])
        if options.is_graded:
            _grade(options, works, outcomes)
    return Evaluated(suite=suite, outcomes=tuple(outcomes.values()), works=tuple(works))


def _style(options: EvaluateOptions) -> Style:
    """Returns how the model is, or was, asked. Raises ValueError where nobody says."""
    written = read_suite_file(options.output)
    if options.answerer is not None and options.style is not None:
        check_same_model(written, options.answerer.model, options.style, options.output)
        return options.style
    if written is None:
        raise ValueError(
            f"{options.output}: no suite.json, so nothing was generated there; give the output of "
            "an earlier mira evaluate, or leave --grade-only out"
        )
    return written.style


def _opened(
    options: EvaluateOptions,
    suite: Suite,
    entries: Sequence[Entry],
    style: Style,
    outcomes: Mapping[str, Outcome],
) -> list[Work]:
    works = []
    for entry in entries:
        try:
            benchmark = open_benchmark(entry, options.cache_folder)
            planned = planned_answers(
                benchmark, suite.sampling_of(entry), style, limit=options.limit
            )
        except (ValueError, FileNotFoundError) as error:
            outcomes[entry.name].fail(str(error))
            continue
        works.append(Work(entry=entry, benchmark=benchmark, planned=tuple(planned)))
    return works


def _write_suite_file(
    options: EvaluateOptions,
    answerer: Answerer,
    suite: Suite,
    style: Style,
    works: Sequence[Work],
) -> list[Served]:
    served = answerer.served()
    check_same_weights(read_suite_file(options.output), served, answerer.model, options.output)
    SuiteFile(model=answerer.model, style=style).write(
        options.output,
        suite,
        served,
        {work.entry.name: asked_of(work.planned) for work in works},
        limit=options.limit,
    )
    return served


def _generate(
    options: EvaluateOptions,
    answerer: Answerer,
    served: Sequence[Served],
    work: Work,
    outcome: Outcome,
) -> None:
    path = work.path(options.output)
    title = f"generate {work.entry.name}"
    try:
        known = read_generations(path) if path.exists() else {}
        missing = [each for each in work.planned if each.key not in known]
        num_done = len(work.planned) - len(missing)
        if missing:
            check_room(served, max(each.prompt.max_tokens for each in missing))
            with GenerationFile(path) as file:
                answerer.generate(missing, file, title=title, num_done=num_done)
        without = textless(work.planned, read_generations(path))
        logger.info(
            "%s: %d answers, %d of them from earlier%s",
            title,
            len(work.planned),
            num_done,
            f"; without a text: {without}" if without else "",
        )
    except ValueError as error:
        outcome.fail(str(error))


def _grade(
    options: EvaluateOptions, works: Sequence[Work], outcomes: Mapping[str, Outcome]
) -> None:
    ready = [work for work in works if not outcomes[work.entry.name].problem]
    if not ready:
        return
    sandbox = best_sandbox(options.min_isolation)
    for work in ready:
        outcome = outcomes[work.entry.name]
        path = work.path(options.output)
        try:
            samples = generated_samples(work.planned, read_generations(path), path)
            if len(samples) < len(work.planned):
                raise ValueError(
                    f"{path}: {len(samples):,} of {len(work.planned):,} answers; generate the "
                    "others with the same command without --grade-only"
                )
            grading = GradeOptions(
                suite=options.suite,
                benchmark=work.entry.name,
                predictions=path,
                output=path.parent,
                data_folder=options.data_folder,
                cache=options.cache_folder,
                min_isolation=options.min_isolation,
                workers=options.workers,
                is_subset=options.limit is not None,
                is_generated=True,
                has_controls=options.has_controls,
            )
            asked = asked_of(work.planned)
            outcome.scores = grade_samples(
                grading, work.entry, work.benchmark, samples, sandbox, asked=asked
            )
        except (ValueError, FileNotFoundError) as error:
            outcome.fail(str(error))


def _exit_code(outcomes: Sequence[Outcome]) -> int:
    for outcome in outcomes:
        if outcome.problem:
            logger.error("%s: %s", outcome.entry.name, outcome.problem)
    if any(outcome.problem for outcome in outcomes):
        return CANNOT
    num_unknown = sum(score.num_unknown for outcome in outcomes for score in outcome.scores)
    if num_unknown:
        logger.error("%d verdicts say nothing about the program; run the same again", num_unknown)
    return UNKNOWN if num_unknown else 0
