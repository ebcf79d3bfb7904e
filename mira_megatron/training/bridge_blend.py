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

from mira_megatron.tokenization.blend_files import held_out_weights
from mira_megatron.tokenization.megatron_datasets import read_blend
from mira_megatron.tokenization.trainer_datasets import trainer_datasets


@dataclass(kw_only=True)
class BlendDatasetProvider(DatasetProvider):  # type: ignore[misc]  # megatron is untyped
    """Builds a blend of any hand-over with the dataset class that it needs.

    The container it was made for is remembered, and asked at the end: what is said on a command
    line changes the container after `use_blend`, and Bridge tells a provider nothing of it.
    """

    blend_folder: str
    cache_folder: str  # of Megatron's indices
    seed: int
    num_dataset_builder_threads: int = 1
    dataloader_type: Literal["single", "cyclic", "batch", "external"] | None = "single"

    def __post_init__(self) -> None:
        # No field: Bridge writes a config's fields out, and the container holds this one.
        self._container: Any = None

    def remember(self, container: Any) -> None:
        """Keeps the container whose seed, sequence length and vocabulary are to be the blend's."""
        self._container = container

    def build_datasets(self, context: DatasetBuildContext) -> tuple[Any, Any, Any]:
        """Returns (train, valid, test), the latter two as long as the evaluations ask for.

        Raises ValueError where more training samples are asked for than one pass has, and where
        seed, sequence length or vocabulary of the training are not those of the blend; TypeError
        where a prefix with a keep mask is read by another class.
        """
        blend = read_blend(Path(self.blend_folder))
        self._check_training(blend, context.tokenizer)
        datasets = trainer_datasets(
            blend,
            (context.train_samples, context.valid_samples, context.test_samples),
            seed=self.seed,
            cache_folder=Path(self.cache_folder),
            options={"num_dataset_builder_threads": self.num_dataset_builder_threads},
        )
        return datasets.train, datasets.valid, datasets.test

    def _check_training(self, blend: Mapping[str, Any], tokenizer: Any) -> None:
        model = getattr(self._container, "model", None)
        sizes = [getattr(each, "vocab_size", None) or 0 for each in (tokenizer, model)]
        if 0 < max(sizes) < blend["vocab_size"]:
            raise ValueError(
                f"{self.blend_folder}: its tokenizer has {blend['vocab_size']:,} tokens, but the "
                f"training's has {max(sizes):,}. Train with the tokenizer of the blend."
            )
        if self._container is None:
            return
        seed, length = self._container.rng.seed, self._container.model.seq_length
        if seed != self.seed:
            raise ValueError(
                f"rng.seed={seed}, but dataset.seed={self.seed}, which decides the order of the "
                "samples. Set both to the same, or call use_blend last."
            )
        if length != blend["sequence_length"]:
            raise ValueError(
                f"model.seq_length={length}, but the blend of arm {blend.get('arm')!r} has samples "
                f"of {blend['sequence_length']:,} tokens. Leave model.seq_length to use_blend, or "
                f"blend again with blend.sequence_length={length}."
            )


def use_blend(config: Any, blend_folder: Path, *, cache_folder: Path) -> None:
    """Sets a ConfigContainer's data, sequence length and number of iterations to a blend's.

    The seed is the container's own. What is changed of them afterwards is refused when datasets are
    built. Raises ValueError where a global batch is more than one pass.
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
    config.dataset.remember(config)
    config.model.seq_length = blend["sequence_length"]
    config.train.train_samples = None
    config.train.train_iters = num_iterations


def gpt_dataset_config(
    blend: Mapping[str, Any], *, seed: int, cache_folder: Path
) -> GPTDatasetConfig:
    """Returns Bridge's own dataset config for a blend from `read_blend` without keep masks.

    Several held-out prefixes have their samples as weights, so that evaluations never use them up.
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
            (blend["valid"], held_out_weights(blend, "valid")),
            (blend["test"], held_out_weights(blend, "test")),
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
