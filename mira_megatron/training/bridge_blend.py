"""A blend as the data of a Megatron-Bridge training: `use_blend(config, folder, ...)`.

Needs Megatron-Bridge (`requirements/bridge.txt`: 0.3.1). `BlendDatasetProvider` reads every
hand-over; views and physical copies can be read by Bridge's own GPTDatasetConfig as well. The
provider holds its blend and is no GPTDatasetConfig: from Bridge 0.6.0 on, whatever is one is read
by the stock GPTDataset (data/utils.py, get_dataset_provider): silently, without its keep masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from megatron.bridge.training.config import (
    DatasetBuildContext,
    DatasetProvider,
    GPTDatasetConfig,
)
from megatron.core.datasets.gpt_dataset import GPTDatasetConfig as CoreGPTDatasetConfig

from mira_megatron.tokenization.megatron_datasets import read_blend
from mira_megatron.tokenization.trainer_datasets import trainer_datasets


@dataclass(kw_only=True)
class BlendDatasetProvider(DatasetProvider):  # type: ignore[misc]  # megatron is untyped
    """Builds a blend of any hand-over with the dataset class that it needs."""

    blend_folder: str
    cache_folder: str  # of Megatron's indices
    seed: int
    num_dataset_builder_threads: int = 1
    dataloader_type: Literal["single", "cyclic", "batch", "external"] | None = "single"

    def build_datasets(self, context: DatasetBuildContext) -> tuple[Any, Any, Any]:
        """Returns (train, valid, test), the latter two as long as the evaluations ask for.

        Raises ValueError where more training samples are asked for than one pass has, TypeError
        where a prefix with a keep mask is read by another class.
        """
        datasets = trainer_datasets(
            read_blend(Path(self.blend_folder)),
            (context.train_samples, context.valid_samples, context.test_samples),
            seed=self.seed,
            cache_folder=Path(self.cache_folder),
            options={"num_dataset_builder_threads": self.num_dataset_builder_threads},
        )
        return datasets.train, datasets.valid, datasets.test


def use_blend(config: Any, blend_folder: Path, *, cache_folder: Path) -> None:
    """Sets a ConfigContainer's data, sequence length and number of iterations to a blend's.

    The seed is the container's own. Raises ValueError where a global batch is more than one pass.
    """
    blend = read_blend(blend_folder)
    num_iterations = blend["num_train_samples"] // config.train.global_batch_size
    if num_iterations == 0:
        raise ValueError(
            f"{blend_folder}: its {blend['num_train_samples']:,} samples are no global batch of "
            f"{config.train.global_batch_size:,}. Select more, or lower train.global_batch_size."
        )
    config.dataset = BlendDatasetProvider(
        blend_folder=str(blend_folder), cache_folder=str(cache_folder), seed=config.rng.seed
    )
    config.model.seq_length = blend["sequence_length"]
    config.train.train_samples = None
    config.train.train_iters = num_iterations


def gpt_dataset_config(
    blend: Mapping[str, Any], *, seed: int, cache_folder: Path
) -> GPTDatasetConfig:
    """Returns Bridge's own dataset config for a blend from `read_blend` without keep masks.

    Bridge gives it the training's tokenizer: where that pads with the blend's `eod_id`, but ends
    texts with another token (instruct models), Megatron takes every end of a document for padding.
    """
    if blend["handover"] == "keep_mask_dataset":
        raise ValueError(
            f"arm {blend.get('arm')!r}: GPTDatasetConfig knows no keep masks, and training would "
            "see every document. Use BlendDatasetProvider, or blend.handover=index_view."
        )
    return GPTDatasetConfig(
        seq_length=blend["sequence_length"],
        random_seed=seed,
        blend_per_split=[
            (blend["train"], blend.get("train_weights")),
            (blend["valid"], None),
            (blend["test"], None),
        ],
        path_to_cache=str(cache_folder),
        # Bridge's checks ask for these three, which megatron-core leaves undecided.
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        dataloader_type="single",
    )


def refuse_lost_mask(dataset: Any) -> None:
    """Raises TypeError for a dataset config whose keep masks some Bridge would drop silently.

    To be called with `config.dataset` before `pretrain`. A config that is a GPTDatasetConfig and
    also a DatasetProvider, or names keep masks, builds the stock GPTDataset in Bridge 0.6.0 and
    later; 0.3.1 asks the provider, and has a KeyError for the other.
    """
    if not isinstance(dataset, CoreGPTDatasetConfig):
        return
    if isinstance(dataset, DatasetProvider) or getattr(dataset, "keep_masks", None):
        raise TypeError(
            f"{type(dataset).__name__} is a GPTDatasetConfig: Megatron-Bridge may read it with the "
            "stock GPTDataset, which trains on every document. Use BlendDatasetProvider, which "
            "is none."
        )
