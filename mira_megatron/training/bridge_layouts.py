"""How a scorer's training is spread over GPUs, and the memory that this takes. Free of torch.

The arithmetic is printed by `python -m mira_megatron.training.bridge_layouts`; it is an estimate
from sizes, not a measurement.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mira_megatron.training.bridge_models import QWEN3_30B_A3B, QWEN35_35B_A3B, ClusterModel
from mira_megatron.training.memory import (
    GPU_GB,
    RESERVED_GB,
    MemoryEstimate,
    StepSettings,
    estimate_memory,
)
from mira_megatron.training.rank_parameters import ParallelSplit

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterLayout:
    """Parallel sizes, and in what precision the optimizer keeps its state.

    Tensor and pipeline parallelism stay 1: hidden size 2,048 is too narrow to cut. A sample's
    65,536 tokens are cut by context parallelism and the experts by expert parallelism, on the same
    eight GPUs of a node.
    """

    num_gpus: int
    gpu: str  # of GPU_GB
    context_parallel: int = 8
    expert_parallel: int = 8
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    global_batch_size: int  # packed samples a step
    # True: gradients in float32, Adam's moments in float32. False: both in bfloat16, for a GPU that
    # has no room for more; main parameters stay float32.
    full_precision_state: bool = True

    def __post_init__(self) -> None:
        per_replica = self.tensor_parallel * self.pipeline_parallel * self.context_parallel
        if self.num_gpus % per_replica:
            raise ValueError(
                f"num_gpus={self.num_gpus} must be a multiple of tensor x pipeline x context "
                f"parallel = {per_replica}"
            )
        if self.num_gpus % (self.expert_parallel * self.pipeline_parallel):
            raise ValueError(
                f"num_gpus={self.num_gpus} must be a multiple of expert x pipeline parallel = "
                f"{self.expert_parallel * self.pipeline_parallel}"
            )
        if self.global_batch_size % self.data_parallel:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} must be a multiple of the data "
                f"parallel size {self.data_parallel}"
            )
        if self.gpu not in GPU_GB:
            raise ValueError(f"gpu={self.gpu!r} must be one of {', '.join(GPU_GB)}")

    @property
    def data_parallel(self) -> int:
        """Returns how many samples are worked on at the same time."""
        return self.num_gpus // (
            self.tensor_parallel * self.pipeline_parallel * self.context_parallel
        )

    @property
    def split(self) -> ParallelSplit:
        """Returns how it cuts a model."""
        return ParallelSplit(
            num_gpus=self.num_gpus,
            tensor=self.tensor_parallel,
            pipeline=self.pipeline_parallel,
            context=self.context_parallel,
            expert=self.expert_parallel,
        )

    @property
    def name(self) -> str:
        """Returns the end of a recipe's name."""
        return f"{self.num_gpus}gpu_{self.gpu}_bf16"

    def step(self, sequence_length: int) -> StepSettings:
        """Returns what a step of one sample of this length keeps, and in what precision."""
        state_bytes = 4 if self.full_precision_state else 2
        return StepSettings(
            sequence_length=sequence_length, gradient_bytes=state_bytes, moment_bytes=state_bytes
        )


H200_8 = ClusterLayout(num_gpus=8, gpu="h200", global_batch_size=16)
H100_8 = ClusterLayout(num_gpus=8, gpu="h100", global_batch_size=16, full_precision_state=False)
H200_64 = ClusterLayout(num_gpus=64, gpu="h200", global_batch_size=32)
H100_64 = ClusterLayout(num_gpus=64, gpu="h100", global_batch_size=32)


MODELS = (QWEN3_30B_A3B, QWEN35_35B_A3B)
LAYOUTS = (H200_8, H100_8, H200_64, H100_64)


def recipe_name(model: ClusterModel, layout: ClusterLayout) -> str:
    """Returns a recipe's name, in the manner of Megatron-Bridge."""
    return f"{model.name}_scorer_sft_{layout.name}_config"


def find_recipe(name: str) -> tuple[ClusterModel, ClusterLayout]:
    """Returns what a recipe is made of; raises ValueError for a name that none has."""
    recipes = {
        recipe_name(model, layout): (model, layout) for model in MODELS for layout in LAYOUTS
    }
    if name not in recipes:
        raise ValueError(f"there is no recipe {name!r}. There are: {', '.join(recipes)}")
    return recipes[name]


def memory_per_gpu(
    model: ClusterModel, layout: ClusterLayout, sequence_length: int
) -> MemoryEstimate:
    """Returns what one GPU holds for samples of `sequence_length` tokens, one at a time."""
    return estimate_memory(model.sizes, layout.split, layout.step(sequence_length))


def require_room(model: ClusterModel, layout: ClusterLayout, sequence_length: int) -> None:
    """Raises ValueError where a step cannot fit into a GPU by the arithmetic above."""
    memory = memory_per_gpu(model, layout, sequence_length)
    if not memory.fits(layout.gpu):
        raise ValueError(
            f"{model.name} on {layout.name} with {sequence_length:,} tokens takes about "
            f"{memory.total:.0f} GB of a GPU's {GPU_GB[layout.gpu] - RESERVED_GB:.0f} usable GB. "
            "Use more GPUs, a larger kind, or a shorter sequence."
        )


def memory_table(sequence_length: int = 65536) -> list[str]:
    """Returns the lines of the Markdown table in docs/cluster-recipes.md."""
    lines = [
        "| model | layout | weights | gradients | optimizer | logits | activations | sum | room |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        for layout in LAYOUTS:
            memory = memory_per_gpu(model, layout, sequence_length)
            room = GPU_GB[layout.gpu] - RESERVED_GB
            fits = "" if memory.fits(layout.gpu) else " **does not fit**"
            lines.append(
                f"| {model.name} | {layout.name} | {memory.weights:.1f} | {memory.gradients:.1f} "
                f"| {memory.optimizer:.1f} | {memory.logits:.1f} | {memory.activations:.1f} "
                f"| {memory.total:.1f} | {room:.0f}{fits} |"
            )
    return lines


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for line in memory_table():
        logger.info("%s", line)
