"""Which dense recipes there are, how each is spread over GPUs, and the memory it takes. No torch.

The arithmetic is printed by `python -m mira_megatron.training.dense_layouts`; it is an estimate
from sizes, not a measurement.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mira_megatron.config import nearest
from mira_megatron.training.bridge_layouts import ClusterLayout, memory_per_gpu
from mira_megatron.training.bridge_models import ClusterModel
from mira_megatron.training.dense_models import (
    LONG_CONTEXT,
    OWN_CONTEXT,
    QWEN25_CODER_1P5B,
    QWEN25_CODER_14B,
)
from mira_megatron.training.memory import GPU_GB, RESERVED_GB

logger = logging.getLogger(__name__)

MIDTRAIN, INSTRUCT_SFT = "midtrain", "instruct_sft"
GPUS_PER_NODE = 8

# Tokens of an optimizer step, the same on any number of GPUs, so that a training may go on on
# another: 25 billion tokens are 5,960 steps, 1 billion 953. Our choice; the paper's is not known.
_TOKENS_PER_STEP = {
    (MIDTRAIN, QWEN25_CODER_14B.name): 2**22,
    (MIDTRAIN, QWEN25_CODER_1P5B.name): 2**20,
    (INSTRUCT_SFT, QWEN25_CODER_14B.name): 2**20,
    (INSTRUCT_SFT, QWEN25_CODER_1P5B.name): 2**20,
}
# (tensor, context) parallel sizes, within a node of eight: the weights and their gradients are cut
# by tensor parallelism only as far as a GPU's memory asks for it.
_CUTS = {
    (QWEN25_CODER_14B.name, OWN_CONTEXT): {
        (8, "h200"): (2, 4),
        (8, "h100"): (4, 2),
        (64, "h200"): (2, 4),
        (64, "h100"): (2, 4),
    },
    (QWEN25_CODER_14B.name, LONG_CONTEXT): {
        (8, "h200"): (2, 4),
        (8, "h100"): (8, 1),
        (64, "h200"): (2, 4),
        (64, "h100"): (4, 2),
    },
    (QWEN25_CODER_1P5B.name, OWN_CONTEXT): {(8, "h200"): (1, 2), (8, "h100"): (1, 2)},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseRecipe:
    """One recipe: what is trained, how long its samples are, and on which GPUs."""

    task: str  # MIDTRAIN or INSTRUCT_SFT
    model: ClusterModel
    sequence_length: int  # tokens of a sample
    layout: ClusterLayout

    @property
    def name(self) -> str:
        """Returns the recipe's name, in the manner of Megatron-Bridge."""
        length = "_128k" if self.sequence_length == LONG_CONTEXT else ""
        return f"{self.model.name}_{self.task}{length}_{self.layout.name}_config"

    @property
    def num_nodes(self) -> int:
        """Returns the nodes of eight GPUs."""
        return self.layout.num_gpus // GPUS_PER_NODE


def _recipes() -> dict[str, DenseRecipe]:
    models = {model.name: model for model in (QWEN25_CODER_14B, QWEN25_CODER_1P5B)}
    made = [
        DenseRecipe(
            task=task,
            model=models[name],
            sequence_length=length,
            layout=ClusterLayout(
                num_gpus=num_gpus,
                gpu=gpu,
                tensor_parallel=tensor,
                context_parallel=context,
                expert_parallel=1,
                global_batch_size=_TOKENS_PER_STEP[task, name] // length,
            ),
        )
        for task in (MIDTRAIN, INSTRUCT_SFT)
        for (name, length), cuts in _CUTS.items()
        for (num_gpus, gpu), (tensor, context) in cuts.items()
        if task == MIDTRAIN or length == OWN_CONTEXT  # nobody says that the SFT was longer
    ]
    return {recipe.name: recipe for recipe in made}


RECIPES = _recipes()


def find_dense_recipe(name: str, task: str) -> DenseRecipe:
    """Returns a recipe of a task; raises ValueError for a name that none of that task has."""
    names = [each for each, recipe in RECIPES.items() if recipe.task == task]
    if name not in names:
        raise ValueError(f"there is no {task} recipe {name!r}.{nearest(name, names)}")
    return RECIPES[name]


def memory_table() -> list[str]:
    """Returns the lines of the Markdown table in docs/midtraining.md."""
    lines = [
        "| recipe | TP x CP | samples | weights | gradients | optimizer | logits | activations "
        "| sum | room |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, recipe in RECIPES.items():
        layout = recipe.layout
        memory = memory_per_gpu(recipe.model, layout, recipe.sequence_length)
        lines.append(
            f"| {name.removesuffix('_bf16_config')} | {layout.tensor_parallel} x "
            f"{layout.context_parallel} | {layout.global_batch_size} | {memory.weights:.1f} "
            f"| {memory.gradients:.1f} | {memory.optimizer:.1f} | {memory.logits:.1f} "
            f"| {memory.activations:.1f} | {memory.total:.1f} "
            f"| {GPU_GB[layout.gpu] - RESERVED_GB:.0f} |"
        )
    return lines


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for line in memory_table():
        logger.info("%s", line)
