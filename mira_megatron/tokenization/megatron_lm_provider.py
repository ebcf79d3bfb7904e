"""Megatron-LM's dataset provider for a blend, for a copy of pretrain_gpt.py of a few lines.

    from megatron.training import pretrain
    from mira_megatron.tokenization.megatron_lm_provider import datasets_provider
    pretrain(datasets_provider(Path("runs/code50b/blends/group")), model_provider, ...)

What pretrain_gpt.py itself cannot do is read keep masks: its dataset class is written into it
(Megatron-LM core_v0.16.1, pretrain_gpt.py 282-311). Index views need no provider.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from megatron.core import parallel_state

from mira_megatron.tokenization.megatron_datasets import read_blend
from mira_megatron.tokenization.trainer_datasets import at_sequence_length, trainer_datasets

DatasetsProvider = Callable[..., tuple[Any, Any, Any]]

# Field of GPTDatasetConfig -> Megatron-LM's argument, for what changes no sample's tokens.
_OPTIONS = {
    "num_dataset_builder_threads": "num_dataset_builder_threads",
    "mmap_bin_files": "mmap_bin_files",
    "reset_position_ids": "reset_position_ids",
    "reset_attention_mask": "reset_attention_mask",
    "eod_mask_loss": "eod_mask_loss",
    "create_attention_mask": "create_attention_mask_in_dataloader",
    "mid_level_dataset_surplus": "mid_level_dataset_surplus",
    "fast_cache_load": "dataloader_fast_cache_load",
    "defer_npy_index_mmap": "dataloader_defer_npy_index_mmap",
}
_OTHER_DATA = (
    "data_path",
    "data_args_path",
    "train_data_path",
    "valid_data_path",
    "test_data_path",
    "per_split_data_args_path",
    "split",
    "mock_data",
    "sft",
    "fim_data",
    "multiple_validation_sets",
)


def datasets_provider(blend_folder: Path, *, arguments: Any = None) -> DatasetsProvider:
    """Returns the function that Megatron-LM's `pretrain` takes as its dataset provider.

    Seed, sequence length, cache folder and ways of loading are those of Megatron's arguments,
    which are taken from Megatron when none are given. Another sequence length than the blend's is
    taken as it is; more training samples than there are at that length are refused.
    """

    def provide(
        train_val_test_num_samples: Sequence[int | None], vp_stage: int | None = None
    ) -> tuple[Any, Any, Any]:
        megatron = _get_args() if arguments is None else arguments
        _check_arguments(megatron)
        blend = at_sequence_length(read_blend(blend_folder), megatron.seq_length)
        _check_vocabulary(megatron, blend["vocab_size"], blend_folder)
        datasets = trainer_datasets(
            blend,
            train_val_test_num_samples,
            seed=megatron.seed,
            cache_folder=Path(megatron.data_cache_path),
            options=_options(megatron),
            is_built_on_rank=partial(_is_built_on_rank, megatron, vp_stage),
        )
        return datasets.train, datasets.valid, datasets.test

    provide.is_distributed = True  # type: ignore[attr-defined]  # how Megatron-LM asks for it
    return provide


def _get_args() -> Any:
    # Not part of megatron-core's wheel: there only inside Megatron-LM itself.
    from megatron.training import get_args  # noqa: PLC0415

    return get_args()


def _check_arguments(megatron: Any) -> None:
    for name in _OTHER_DATA:
        if getattr(megatron, name, None):
            raise ValueError(
                f"--{name.replace('_', '-')} chooses data, and so does the blend. Leave it out."
            )
    if megatron.data_cache_path is None:
        raise ValueError(
            "--data-cache-path is not given: Megatron would write its indices beside the tokens, "
            "and build them anew in every process. Give a folder that all ranks can reach."
        )


def _check_vocabulary(megatron: Any, vocab_size: int, blend_folder: Path) -> None:
    padded = getattr(megatron, "padded_vocab_size", None)
    if padded is not None and padded < vocab_size:
        raise ValueError(
            f"{blend_folder}: its tokenizer has {vocab_size:,} tokens, but the model's embeddings "
            f"have {padded:,}. Give --tokenizer-model the tokenizer of the blend."
        )


def _options(megatron: Any) -> dict[str, Any]:
    options = {field: getattr(megatron, argument) for field, argument in _OPTIONS.items()}
    if megatron.per_dataset_sequences_path is not None:
        content = Path(megatron.per_dataset_sequences_path).read_bytes()
        options["sequences_per_dataset"] = json.loads(content)
    return options


def _is_built_on_rank(megatron: Any, vp_stage: int | None) -> bool:
    """Returns whether this rank reads data: the first of a tensor group, where a stage needs it."""
    if not parallel_state.model_parallel_is_initialized():
        return True
    if parallel_state.get_tensor_model_parallel_rank() != 0:
        return False
    if getattr(megatron, "mtp_num_layers", None):
        return True  # multi-token prediction reads tokens on stages that a layout chooses
    ends = (parallel_state.is_pipeline_first_stage, parallel_state.is_pipeline_last_stage)
    return any(is_end(ignore_virtual=vp_stage is None, vp_stage=vp_stage) for is_end in ends)
