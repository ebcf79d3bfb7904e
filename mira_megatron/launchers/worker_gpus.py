"""How many GPUs one of several workers needs that each load the scorers themselves."""

from __future__ import annotations

from mira_megatron.config import Recipe
from mira_megatron.grouping.source_groups import source_groups
from mira_megatron.scoring.scorers import scorer_judge


def gpus_of_a_worker(recipe: Recipe) -> int:
    """Returns as many as the largest model of engine vllm is spread over, 0 without that engine."""
    judges = [scorer_judge(recipe, group) for group in source_groups(recipe)]
    return max((each.tensor_parallel_size for each in judges if each.engine == "vllm"), default=0)
