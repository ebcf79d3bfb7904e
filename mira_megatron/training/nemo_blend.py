"""A blend as the data of a NeMo 2.7 pre-training: the adapter for those who still run NeMo.

NeMo's PreTrainingDataModule takes a dataset class, but makes Megatron's config itself, and a keep
mask has no place in that. `BlendDataModule` makes the config, and looks at what was built from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import nemo_run as run
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from nemo.collections.llm.gpt.data.pre_training import PreTrainingDataModule

from mira_megatron.tokenization.argument_files import zipped_prefixes
from mira_megatron.tokenization.blend_files import held_out_weights
from mira_megatron.tokenization.keep_mask_dataset import (
    KeepMaskGPTDataset,
    KeepMaskGPTDatasetConfig,
)
from mira_megatron.tokenization.megatron_datasets import BlendTokenizer, read_blend
from mira_megatron.tokenization.trainer_datasets import require_class


class BlendDataModule(PreTrainingDataModule):  # type: ignore[misc]  # nemo is untyped
    """NeMo's data module over a blend of any hand-over.

    Takes what PreTrainingDataModule takes but for paths, sequence length, number of training
    samples and dataset class, which are the blend's. `tokenizer` is the model's; the datasets get
    the blend's end of document, which a model's tokenizer may take for padding.
    """

    # NeMo records the arguments of __init__, and makes a checkpoint's data module again from them.
    # It takes a class for recorded whose parent is; here the parent's arguments are others.
    __wrapped_init__ = False

    def __init__(
        self,
        blend_folder: str,
        tokenizer: Any,
        micro_batch_size: int,
        global_batch_size: int,
        seed: int,
        index_mapping_dir: str,
        num_workers: int = 8,
        num_dataset_builder_threads: int = 1,
    ) -> None:
        self.blend = read_blend(Path(blend_folder))
        is_masked = self.blend["handover"] == "keep_mask_dataset"
        super().__init__(
            paths=blend_paths(self.blend),
            seq_length=self.blend["sequence_length"],
            tokenizer=tokenizer,
            micro_batch_size=micro_batch_size,
            global_batch_size=global_batch_size,
            num_workers=num_workers,
            seed=seed,
            split=None,
            index_mapping_dir=index_mapping_dir,
            num_dataset_builder_threads=num_dataset_builder_threads,
            num_train_samples=self.blend["num_train_samples"],
            dataset_cls=KeepMaskGPTDataset if is_masked else GPTDataset,
        )

    def io_init(self, **kwargs: Any) -> Any:
        """Returns NeMo's record of the arguments: of this class, not of its parent's call after."""
        return self.__io__ if hasattr(self, "__io__") else super().io_init(**kwargs)

    @property
    def gpt_dataset_config(self) -> GPTDatasetConfig:
        """Returns NeMo's config with the blend's keep masks and its end of document."""
        plain = super().gpt_dataset_config
        given = {each.name: getattr(plain, each.name) for each in fields(plain) if each.init}
        given["tokenizer"] = BlendTokenizer(
            vocab_size=self.blend["vocab_size"], eod=self.blend["eod_id"]
        )
        if self.blend["handover"] == "keep_mask_dataset":
            return KeepMaskGPTDatasetConfig(**given, keep_masks=self.blend["keep_masks"])
        return GPTDatasetConfig(**given)

    def build(
        self,
        trainer_max_steps: int,
        trainer_val_check_interval: int,
        trainer_limit_val_batches: int | float,
        trainer_limit_test_batches: int | float,
    ) -> None:
        """Builds the datasets.

        Raises ValueError where the steps need more samples than the blend has, TypeError where a
        prefix with a keep mask is read by another class.
        """
        wanted = trainer_max_steps * self.data_sampler.global_batch_size
        if wanted > self.num_train_samples:
            raise ValueError(
                f"max_steps={trainer_max_steps} of {self.data_sampler.global_batch_size} samples "
                f"are {wanted:,}, but the blend of arm {self.blend.get('arm')!r} has "
                f"{self.num_train_samples:,}. Train for at most "
                f"{self.num_train_samples // self.data_sampler.global_batch_size} steps."
            )
        limit = trainer_limit_val_batches
        if isinstance(limit, float) and 0 < limit <= 1:
            # NeMo then reads the validation data once each time, for which there are no weights.
            self.build_kwargs["blend_per_split"][1] = (self.blend["valid"], None)
        super().build(
            trainer_max_steps,
            trainer_val_check_interval,
            trainer_limit_val_batches,
            trainer_limit_test_batches,
        )
        require_class(self._train_ds, self.dataset_cls)


def blend_paths(blend: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns `paths` for PreTrainingDataModule, of a blend from `read_blend`.

    With NeMo's own dataset class they are the selection for views and physical copies only. Several
    held-out prefixes have their samples as weights, so that evaluations never use them up; a
    fraction for limit_val_batches, which asks for no number of samples, Megatron then refuses.
    """
    return {
        "train": zipped_prefixes(blend["train"], blend.get("train_weights")),
        "validation": zipped_prefixes(blend["valid"], held_out_weights(blend, "valid")),
        "test": zipped_prefixes(blend["test"], held_out_weights(blend, "test")),
    }


def blend_data(
    blend_folder: Path,
    *,
    tokenizer: run.Config,
    micro_batch_size: int,
    global_batch_size: int,
    seed: int,
    cache_folder: Path,
) -> run.Config:
    """Returns the data of a NeMo recipe: `recipe.data = blend_data(...)`."""
    return run.Config(
        BlendDataModule,
        blend_folder=str(blend_folder),
        tokenizer=tokenizer,
        micro_batch_size=micro_batch_size,
        global_batch_size=global_batch_size,
        seed=seed,
        index_mapping_dir=str(cache_folder),
    )
