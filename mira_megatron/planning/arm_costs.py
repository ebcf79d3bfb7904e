"""What every arm of a recipe takes: its own trainings, and the scores that it shares with others.

An arm ranks by a score table. One that MIRA makes takes all stages up to `score`, a baseline's its
method; every arm that ranks by it needs it, and it is made once. What follows is the arm's own,
once per seed: mid-training, the loss on held-out documents, instruction tuning, evaluation.

GPU-hours are as in stage_hours.py, of `label` and `score` as they were sampled where they could be.
Money is what a vendor takes for tokens where the recipe has prices, else GPU-hours at
`plan.price_per_gpu_hour`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mira_megatron.config import Recipe
from mira_megatron.planning.baseline_hours import baseline_hours
from mira_megatron.planning.corpus_sizes import CorpusSizes, corpus_sizes
from mira_megatron.planning.operations import PEAK_FLOPS, GpuHours
from mira_megatron.planning.plan import Plan, Quote
from mira_megatron.planning.plan_config import PlanConfig
from mira_megatron.planning.stage_hours import (
    asked_hours,
    asked_section,
    distill_hours,
    eval_hours,
    held_out_hours,
    instruct_hours,
    midtrain_hours,
)
from mira_megatron.training.trained_arms import TrainedArm, trained_arms

# What MIRA's scores come of, in running order: stages that may take GPUs, and the sections that
# each needs.
_SCORING = {
    "group": ("group",),
    "discover": ("discover",),
    "anchor": ("anchor",),
    "label": ("label",),
    "distill": ("distill",),
    "reliability": ("label", "score"),
    "score": ("score",),
}
_EMBEDDING = ("group", "anchor")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one stage takes of one score table, or of all models of one arm."""

    stage: str
    num_models: int = 1
    each: GpuHours  # of one model
    price: float | None = None  # of what it takes for one model; None: no price is given

    @property
    def gpu_hours(self) -> float | None:
        """Returns the hours of all models; None where one's are not known."""
        return None if self.each.value is None else self.num_models * self.each.value

    @property
    def money(self) -> float | None:
        """Returns the price of all models; None where one's is not known."""
        return None if self.price is None else self.num_models * self.price


@dataclass(frozen=True, kw_only=True, slots=True)
class Sum:
    """Costs together, as far as they are known."""

    gpu_hours: float
    money: float | None  # None: no price is given
    without: tuple[str, ...]  # stages whose hours are not known
    unpriced: tuple[str, ...]  # stages whose money is not known


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTable:
    """A score table, and who ranks by it."""

    name: str
    method: str  # mira, a baseline's, or adopted
    costs: tuple[Cost, ...]
    arms: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmCosts:
    """One arm."""

    arm: str
    table: str | None  # None: the base as it is, which ranks nothing
    own: tuple[Cost, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCosts:
    """All arms of a recipe."""

    tables: tuple[ScoreTable, ...]
    arms: tuple[ArmCosts, ...]
    num_gpus: int | None  # at hand

    def table_of(self, arm: ArmCosts) -> ScoreTable | None:
        """Returns the score table that an arm ranks by."""
        return next((table for table in self.tables if table.name == arm.table), None)

    @property
    def whole(self) -> Sum:
        """Returns the whole run: every score table once, and every arm's own."""
        return total(
            [
                *(cost for table in self.tables for cost in table.costs),
                *(cost for arm in self.arms for cost in arm.own),
            ]
        )


def total(costs: Iterable[Cost]) -> Sum:
    """Returns the sum of what is known, and which stages are left out of it."""
    listed = list(costs)
    prices = [cost.money for cost in listed if cost.money is not None]
    unknown = [cost.stage for cost in listed if cost.gpu_hours is None]
    unpriced = [cost.stage for cost in listed if cost.money is None]
    return Sum(
        gpu_hours=sum(cost.gpu_hours for cost in listed if cost.gpu_hours is not None),
        money=sum(prices) if any(prices) else None,
        without=tuple(dict.fromkeys(unknown)),
        unpriced=tuple(dict.fromkeys(unpriced)),
    )


def arm_costs(recipe: Recipe, sampled: Plan | None) -> RunCosts | None:
    """Returns what every arm takes, None for a recipe without arms.

    `sampled` is what labelling and scoring take going by a sample, where there is one.
    """
    arms = recipe.mapping("arms")
    if not arms:
        return None
    config = recipe.section("plan", PlanConfig)
    costing = _Costing(recipe, config, _gpu_of(recipe), corpus_sizes(recipe, config))
    ranking: dict[str, list[str]] = {}
    for arm, entry in arms.items():
        ranking.setdefault(str(entry["score"]), []).append(arm)
    models: dict[str, list[TrainedArm]] = {}
    for model in trained_arms(recipe):
        models.setdefault(model.arm, []).append(model)
    return RunCosts(
        tables=tuple(
            costing.table(name, tuple(ranked), sampled) for name, ranked in ranking.items()
        ),
        arms=tuple(
            ArmCosts(
                arm=arm,
                table=str(arms[arm]["score"]) if arm in arms else None,
                own=tuple(costing.own(trained)),
            )
            for arm, trained in models.items()
        ),
        num_gpus=config.num_gpus,
    )


@dataclass(frozen=True, slots=True)
class _Costing:
    recipe: Recipe
    config: PlanConfig
    gpu: str
    sizes: CorpusSizes

    def table(self, name: str, arms: tuple[str, ...], sampled: Plan | None) -> ScoreTable:
        """Returns what a score table takes."""
        baselines = self.recipe.mapping("baselines")
        if name in baselines:
            hours = baseline_hours(self.recipe, self.config, self.gpu, name, self.sizes)
            cost = Cost(stage="baseline", each=hours, price=self._price(hours, baselines[name]))
            return ScoreTable(
                name=name, method=str(baselines[name]["method"]), costs=(cost,), arms=arms
            )
        if name == (self.recipe.values.get("aggregate") or {}).get("scoring"):
            costs = tuple(
                self._of_mira(stage, sampled)
                for stage, sections in _SCORING.items()
                if set(sections) <= set(self.recipe.values)
            )
            return ScoreTable(name=name, method="mira", costs=costs, arms=arms)
        return ScoreTable(name=name, method="adopted", costs=(), arms=arms)

    def own(self, models: Sequence[TrainedArm]) -> Iterator[Cost]:
        """Yields what the models of one arm take after its scores."""
        recipe, config, gpu = self.recipe, self.config, self.gpu
        midtrained = [model for model in models if model.has_midtraining]
        if midtrained and "midtrain" in recipe.values:
            hours = midtrain_hours(recipe, config, gpu, models[0].arm, self.sizes)
            yield self._trained("midtrain", hours, len(midtrained))
        if "midtrain" in recipe.values and "ablation" in recipe.values:
            hours = held_out_hours(recipe, config, gpu, self.sizes)
            yield self._trained("held-out", hours, len(midtrained) or 1)  # the base is read once
        num_last = len(midtrained) or 1
        if "instruct_sft" in recipe.values:
            num_last = len(models)
            yield self._trained("instruct-sft", instruct_hours(recipe, config, gpu), num_last)
        if "eval" in recipe.values:
            yield self._trained("eval", eval_hours(config), num_last)

    def _of_mira(self, stage: str, sampled: Plan | None) -> Cost:
        if stage in _EMBEDDING:
            return self._trained(stage, self._embedded())
        if stage == "distill":
            return self._trained(stage, distill_hours(self.recipe, self.config, self.gpu))
        quote = None if sampled is None else _whole(sampled, stage)
        if quote is not None:
            hours = _sampled(quote)
        else:
            hours = asked_hours(self.recipe, self.config, stage, self.sizes.num_sources)
        price = self._price(hours, asked_section(self.recipe, stage))
        return Cost(stage=stage, each=hours, price=price)

    def _embedded(self) -> GpuHours:
        engine = (self.recipe.values.get("embedder") or {}).get("engine")
        if engine == "tfidf_svd":
            return GpuHours(value=0.0, basis="CPU only")
        return GpuHours(value=None, basis="embeddings are not estimated")

    def _trained(self, stage: str, hours: GpuHours, num_models: int = 1) -> Cost:
        price = self._price(hours, {})
        return Cost(stage=stage, num_models=num_models, each=hours, price=price)

    def _price(self, hours: GpuHours, asked: Mapping[str, Any]) -> float | None:
        """Returns what a vendor takes for the tokens, else what the GPU-hours cost."""
        prices = [
            float(asked.get(f"price_per_million_{what}_tokens") or 0)
            for what in ("prompt", "output")
        ]
        tokens = (hours.prompt_tokens, hours.output_tokens)
        if any(prices) and None not in tokens:
            return sum(
                price * number / 1e6
                for price, number in zip(prices, tokens, strict=True)
                if number is not None
            )
        if hours.value == 0:
            return 0.0
        if hours.value is None or self.config.price_per_gpu_hour is None:
            return None
        return hours.value * self.config.price_per_gpu_hour


def _whole(sampled: Plan, stage: str) -> Quote | None:
    """Returns what a stage takes going by its sample, None where a group of it is not sampled."""
    if any(each.stage == stage for each in sampled.missing):
        return None
    return next((each for each in sampled.totals if each.stage == stage), None)


def _sampled(quote: Quote) -> GpuHours:
    return GpuHours(
        value=None if quote.gpu_hours is None else quote.gpu_hours.value,
        basis="as sampled above",
        requests=quote.requests.value,
        prompt_tokens=quote.prompt_tokens.value,
        output_tokens=quote.output_tokens.value,
    )


def _gpu_of(recipe: Recipe) -> str:
    """Returns the kind of GPU that the recipe's trainings are laid out for; their peak is one."""
    sections = [recipe.values.get(name) or {} for name in ("midtrain", "instruct_sft", "distill")]
    configs = [str(section.get("config", "")) for section in sections]
    kinds = [gpu for config in configs for gpu in PEAK_FLOPS if f"_{gpu}_" in config]
    return kinds[0] if kinds else next(iter(PEAK_FLOPS))
