"""What the score tables of other methods take before they are made (baselines/baseline.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mira_megatron.baselines.dataman_prompt import MAX_TOKENS, MOST_TOKENS, dataman_messages
from mira_megatron.baselines.perplexity_config import perplexity_config
from mira_megatron.config import Recipe
from mira_megatron.json_objects import read_json_object
from mira_megatron.planning.corpus_sizes import CorpusSizes
from mira_megatron.planning.operations import SECONDS_PER_HOUR, GpuHours, predicted
from mira_megatron.planning.plan_config import PlanConfig, rate_names
from mira_megatron.training.model_sizes import model_sizes
from mira_megatron.training.rank_parameters import num_parameters
from mira_megatron.written_numbers import short


def baseline_hours(
    recipe: Recipe, config: PlanConfig, gpu: str, name: str, sizes: CorpusSizes
) -> GpuHours:
    """Returns what the baseline of a name takes; ValueError for a wrong setting of a perplexity."""
    entry = recipe.mapping("baselines")[name]
    match entry.get("method"):
        case "random":
            return GpuHours(value=0.0, basis="a hash: nothing is asked")
        case "dsir":
            return GpuHours(value=0.0, basis="CPU only: every record is read twice")
        case "dataman":
            return _dataman(entry, config, sizes)
        case _:
            return _perplexity(recipe, entry, config, gpu, name, sizes)


def _dataman(entry: Mapping[str, Any], config: PlanConfig, sizes: CorpusSizes) -> GpuHours:
    """Returns one question per record: the text as it is cut, the prompt around it, 29 tokens.

    Of texts that are cut the mean is at most the cut of their mean, so this is at most.
    """
    if entry.get("engine") == "rule_judge":
        return GpuHours(value=0.0, basis="the rule judge: no model is asked")
    rates = config.rates("dataman")
    num_records, mean = sizes.num_records, sizes.tokens_per_record
    if num_records is None or mean is None:
        lacking = config.lacking("num_records", "tokens_per_record")
        return GpuHours(value=None, basis=f"not known: {lacking}")
    around = sum(len(each["content"].encode()) for each in dataman_messages("", None))
    prompt = num_records * (min(mean, MOST_TOKENS) + around / config.bytes_per_token)
    output = num_records * MAX_TOKENS
    asked = {"requests": num_records, "prompt_tokens": prompt, "output_tokens": output}
    if rates is None:
        basis = f"not known: {config.lacking(*rate_names('dataman'))}"
        return GpuHours(value=None, basis=basis, **asked)
    seconds = prompt / rates.prompt_tokens_per_second + output / rates.output_tokens_per_second
    basis = (
        f"at most: {short(num_records)} records x {short(prompt / num_records)} tokens in, "
        f"{MAX_TOKENS} out"
    )
    return GpuHours(value=seconds / SECONDS_PER_HOUR, basis=basis, **asked)


def _perplexity(
    recipe: Recipe,
    entry: Mapping[str, Any],
    config: PlanConfig,
    gpu: str,
    name: str,
    sizes: CorpusSizes,
) -> GpuHours:
    """Returns the forward passes over every record's windows, of the first one or of all."""
    where = f"{recipe.path}: baselines.{name}"
    own = {key: value for key, value in entry.items() if key != "method"}
    settings, _ = perplexity_config(own, where)
    if sizes.num_records is None or sizes.tokens_per_record is None:
        lacking = config.lacking("num_records", "tokens_per_record")
        return GpuHours(value=None, basis=f"not known: {lacking}")
    read, of = min(sizes.tokens_per_record, settings.window_tokens), "at most: first windows"
    if settings.stride_tokens is not None:
        # With every window's context read again.
        read = sizes.tokens_per_record * settings.window_tokens / settings.stride_tokens
        of = "at most: overlapping windows"
    parameters = config.reference_parameters.get(name)
    if settings.engine == "transformers":
        folder = recipe.path_of(settings.model)
        content = read_json_object(folder / "config.json")
        if content is not None:
            counted = num_parameters(model_sizes(content, where=str(folder / "config.json")))
            parameters = float(counted.total)
    if parameters is None:
        return GpuHours(
            value=None,
            basis=f"not known: plan.reference_parameters.{name} not given",
            prompt_tokens=sizes.num_records * read,
        )
    return predicted(parameters, sizes.num_records * read, gpu, config.mfu, of)
