"""The checks of a training's facts, in the order they are reported."""

from __future__ import annotations

from typing import Any

from mira_megatron.doctor import cache_checks, layout_checks, token_checks, version_checks
from mira_megatron.doctor.config_facts import config_facts
from mira_megatron.doctor.config_memory import check_config_memory
from mira_megatron.doctor.facts import TrainingFacts
from mira_megatron.doctor.finding import ERROR, Finding
from mira_megatron.training.bridge_attention import refuse_silent_attention

# Of every training on a cluster.
SIZE_CHECKS = (
    version_checks.check_bridge_release,
    token_checks.check_vocabulary,
    layout_checks.check_parallel_sizes,
    layout_checks.check_batch,
    layout_checks.check_cut,
    layout_checks.check_sequence_parallel,
)
# Of a scorer's: packed samples of prompts and answers.
SCORER_CHECKS = (
    version_checks.check_bridge_release,
    version_checks.check_packed_gated_delta_net,
    token_checks.check_tokenizer,
    token_checks.check_loss,
    token_checks.check_joined_text,
    token_checks.check_end_token,
    token_checks.check_vocabulary,
    layout_checks.check_parallel_sizes,
    layout_checks.check_batch,
    layout_checks.check_cut,
    layout_checks.check_sequence_parallel,
    layout_checks.check_enough_data,
    cache_checks.check_stale_caches,
)


def check_facts(facts: TrainingFacts) -> list[Finding]:
    """Returns what all checks find in a scorer training's facts."""
    return [finding for check in SCORER_CHECKS for finding in check(facts)]


def check_sizes(facts: TrainingFacts) -> list[Finding]:
    """Returns what is found of sizes alone, in any training's facts."""
    return [finding for check in SIZE_CHECKS for finding in check(facts)]


def check_config(config: Any, num_gpus: int) -> list[Finding]:
    """Returns what is found of a Megatron-Bridge ConfigContainer, or anything with its fields.

    Prompts and answers are looked at where the dataset is a FinetuningDatasetConfig; of any other
    the sizes are.
    """
    facts = config_facts(config, num_gpus)
    found = check_facts(facts) if _is_fine_tuning(config.dataset) else check_sizes(facts)
    return [*found, *check_config_memory(config, num_gpus), *check_attention(config)]


def _is_fine_tuning(dataset: Any) -> bool:
    """Returns whether a dataset's config is Bridge's of fine-tuning: by name, without Bridge."""
    return any(kind.__name__ == "FinetuningDatasetConfig" for kind in type(dataset).__mro__)


def check_attention(config: Any) -> list[Finding]:
    """Finds settings by which documents would seem to be kept apart, and are not."""
    try:
        refuse_silent_attention(config)
    except ValueError as error:
        what, _, way_out = str(error).rpartition(". Set ")
        return [Finding(level=ERROR, what=what, where="dataset", way_out=f"set {way_out}")]
    return []
