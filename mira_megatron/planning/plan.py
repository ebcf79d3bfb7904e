"""Price what a recipe's `label` and `score` stages are going to ask, before anything is asked.

Reads   records, anchors and scorers as far as they are there, and answers given before
Writes  nothing, and asks nobody

Every job is priced whole: what the answer store already holds is not taken off, and neither retries
nor attempts beyond the first are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mira_megatron.config import Recipe
from mira_megatron.planning.answer_lengths import answer_lengths
from mira_megatron.planning.jobs import (
    STAGES,
    Job,
    Missing,
    NothingToPrice,
    missing_inputs,
    planned_jobs,
)
from mira_megatron.planning.plan_config import PlanConfig
from mira_megatron.planning.price import Rates, Total, gpu_hours, money, total_of, weighted
from mira_megatron.planning.samples import Sample, draw
from mira_megatron.planning.token_counts import PromptTokens
from mira_megatron.records import NUM_SLOTS
from mira_megatron.rubric.views import ViewMaker
from mira_megatron.scoring.rating import RatingForm


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """What one job takes, or several of a stage together."""

    stage: str
    group: str
    part: str | None  # of what is asked about the group (see Job)
    model: str
    num_records: int
    num_sampled: int
    requests: Total
    prompt_tokens: Total
    output_tokens: Total
    shared_tokens_per_prompt: float | None  # that all of the group's prompts begin with
    gpu_hours: Total | None  # None: not told how fast the model is
    money: Total | None  # None: no prices are given
    prompt_basis: str | None  # None: no model is asked, or it is a sum
    output_basis: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The price of a recipe's labelling and scoring, as far as it can be told."""

    quotes: tuple[Quote, ...]
    totals: tuple[Quote, ...]  # one per stage with a quote
    missing: tuple[Missing, ...]


def make_plan(recipe: Recipe, *, workers: int = 1) -> Plan:
    """Returns the plan.

    Raises NothingToPrice, naming what to run first, where no group can be priced at all, and
    ValueError for settings, anchors or scorers that are wrong.
    """
    config = recipe.section("plan", PlanConfig)
    quotes: list[Quote] = []
    missing: list[Missing] = []
    for job in planned_jobs(recipe):
        lacking = missing_inputs(recipe, job)
        missing += lacking
        if not lacking:
            quotes.append(_quote(recipe, config, job, workers))
    if not quotes and missing:
        first = missing[0]
        raise NothingToPrice(
            f"{recipe.run_folder / first.folder}: nothing can be priced yet, {first.stage} of "
            f"group {first.group} reads this folder. Run `{first.command}` first."
        )
    by_stage = {stage: [each for each in quotes if each.stage == stage] for stage in STAGES}
    return Plan(
        quotes=tuple(quotes),
        totals=tuple(_sum(stage, priced) for stage, priced in by_stage.items() if priced),
        missing=tuple(dict.fromkeys(missing)),  # jobs of a group lack the same
    )


def _quote(recipe: Recipe, config: PlanConfig, job: Job, workers: int) -> Quote:
    n = config.records_per_group
    sample = draw(recipe.run_folder, job, n, seed=recipe.seed, workers=workers)
    form = job.make_form()
    quote = Quote(
        stage=job.stage,
        group=job.group,
        part=job.part,
        model=form.judge.model,
        num_records=sample.num_records,
        num_sampled=len(sample.records),
        requests=Total(value=0),
        prompt_tokens=Total(value=0),
        output_tokens=Total(value=0),
        shared_tokens_per_prompt=0,
        gpu_hours=Total(value=0),
        money=Total(value=0),
        prompt_basis=None,
        output_basis=None,
    )
    if form.judge.config.engine == "rule_judge" or not sample.records:
        return quote
    return _asked(quote, recipe.run_folder, config, job, form, sample)


def _asked(
    quote: Quote,
    run_folder: Path,
    config: PlanConfig,
    job: Job,
    form: RatingForm,
    sample: Sample,
) -> Quote:
    """Returns the quote with what a model is asked, and answers."""
    judge = form.judge
    tokens = PromptTokens(judge, config.bytes_per_token)
    view_maker = ViewMaker(judge.config.max_record_tokens, judge.tokenizer)
    prompts = [form.messages(view_maker.view(record).text) for record in sample.records]
    num_prompts = sample.num_records
    prompt = total_of([tokens.count_messages(each) for each in prompts], num_prompts)
    lengths = answer_lengths(run_folder, job, form, tokens, num_prompts)
    output, basis = lengths.total, lengths.basis
    requests = Total(value=float(num_prompts))
    if judge.is_expected and not judge.is_local:
        # Of every slot it may be asked whether its 1 would have become a 10: the prompt and the
        # answer up to there once more, for one token. How many slots are open is not known before.
        requests = Total(value=float((1 + NUM_SLOTS) * num_prompts), is_most=True)
        asked_again = Total(value=float(NUM_SLOTS * num_prompts), is_most=True)
        prompt = replace(weighted(((1 + NUM_SLOTS, prompt), (NUM_SLOTS, output))), is_most=True)
        output = weighted(((1, output), (1, asked_again)))
        basis = f"{basis}; answer_mode=expected asks about up to every slot again"
    return replace(
        quote,
        requests=requests,
        prompt_tokens=prompt,
        output_tokens=output,
        shared_tokens_per_prompt=tokens.count_shared(prompts),
        gpu_hours=_gpu_hours(config.rates(job.stage), prompt, output),
        money=_money(form, prompt, output),
        prompt_basis=tokens.basis,
        output_basis=basis,
    )


def _gpu_hours(rates: Rates | None, prompt: Total, output: Total) -> Total | None:
    return None if rates is None else gpu_hours(prompt, output, rates)


def _money(form: RatingForm, prompt: Total, output: Total) -> Total | None:
    config = form.judge.config
    prices = (config.price_per_million_prompt_tokens, config.price_per_million_output_tokens)
    if not any(prices):
        return None
    return money(prompt, output, per_million_prompt=prices[0], per_million_output=prices[1])


def _sum(stage: str, quotes: Sequence[Quote]) -> Quote:
    """Returns the groups of a stage together; what is not told of one is not told of all."""
    models = dict.fromkeys(quote.model for quote in quotes)
    return Quote(
        stage=stage,
        group="all",
        part=None,
        model=", ".join(models),
        num_records=sum(quote.num_records for quote in quotes),
        num_sampled=sum(quote.num_sampled for quote in quotes),
        requests=_added([quote.requests for quote in quotes]),
        prompt_tokens=_added([quote.prompt_tokens for quote in quotes]),
        output_tokens=_added([quote.output_tokens for quote in quotes]),
        shared_tokens_per_prompt=None,
        gpu_hours=_added_if_told([quote.gpu_hours for quote in quotes]),
        money=_added_if_told([quote.money for quote in quotes]),
        prompt_basis=None,
        output_basis=None,
    )


def _added(totals: Sequence[Total]) -> Total:
    return weighted((1, total) for total in totals)


def _added_if_told(totals: Sequence[Total | None]) -> Total | None:
    told = [total for total in totals if total is not None]
    return _added(told) if len(told) == len(totals) else None
