"""Run by the bridge environment's Python, under bridge_stand_ins.py.

bridge_blend_probe.py VIEW MASKED     what Bridge makes of a selection, handed over in two ways
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from megatron.bridge.data import loaders
from megatron.bridge.data.samplers import build_pretraining_data_loader
from megatron.bridge.data.utils import _REGISTRY, get_dataset_provider
from megatron.bridge.training.config import (
    ConfigContainer,
    DatasetBuildContext,
    DatasetProvider,
    GPTDatasetConfig,
    runtime_config_update,
)

from mira_megatron.tokenization.megatron_datasets import BlendTokenizer, prefix_datasets, read_blend
from mira_megatron.training.bridge_blend import (
    BlendDatasetProvider,
    gpt_dataset_config,
    refuse_lost_mask,
    use_blend,
)
from mira_megatron.training.bridge_config import scorer_sft_config
from mira_megatron.training.bridge_layouts import H200_8
from mira_megatron.training.bridge_models import QWEN3_30B_A3B
from mira_megatron.training.bridge_settings import ScorerSftPaths, ScorerSftSettings

SEED = 3
VOCAB_SIZE = 1_000_000  # of the blends


class SubclassedConfig(GPTDatasetConfig):  # type: ignore[misc]  # megatron is untyped
    """What suggests itself for a mask in Bridge: its config, and one field more."""

    keep_masks: Any = None


class ConfigAndProvider(GPTDatasetConfig, DatasetProvider):  # type: ignore[misc]
    """A config that builds its datasets itself: asked by 0.3.1, passed over by 0.6.0."""

    def build_datasets(self, context: Any) -> tuple[Any, Any, Any]:
        raise NotImplementedError("the masks would be applied here")


def container() -> ConfigContainer:
    """Returns a training of a real recipe's model, with batches as small as its GPUs allow."""
    layout = replace(H200_8, context_parallel=1, global_batch_size=8)
    settings = ScorerSftSettings(
        sequence_length=1024, seed=SEED, validate_every_steps=1, num_validation_steps=2
    )
    return scorer_sft_config(QWEN3_30B_A3B, layout, settings, ScorerSftPaths())


def with_provider(config: Any, folder: Path) -> None:
    use_blend(config, folder, cache_folder=Path("cache"))


def with_gpt_dataset_config(config: Any, folder: Path) -> None:
    with_provider(config, folder)
    blend = read_blend(folder)
    config.dataset = gpt_dataset_config(blend, seed=SEED, cache_folder=Path("cache"))


def validated(use: Callable[[Any, Path], None], folder: Path) -> ConfigContainer:
    """Returns a container with a blend for its data, after Bridge's own checks."""
    config = container()
    use(config, folder)
    refuse_lost_mask(config.dataset)
    runtime_config_update(config)
    return config


def built(config: Any, folder: Path) -> dict[str, Any]:
    """Returns what Bridge's own way from config to data loader gives a training."""
    blend = read_blend(folder)
    config.dataset.tokenizer = BlendTokenizer(vocab_size=blend["vocab_size"], eod=blend["eod_id"])
    provider = get_dataset_provider(config.dataset)
    if isinstance(config.dataset, DatasetProvider):
        provider = partial(provider, tokenizer=config.dataset.tokenizer)
    asked = loaders.get_train_valid_test_num_samples(config)
    train, valid, test = loaders.build_train_valid_test_datasets(config, provider)
    batches = build_pretraining_data_loader(train, 0, "single", 2, 0, True, pin_memory=False)
    first = next(iter(batches))
    return {
        "asked": asked,
        "iterations": config.train.train_iters,
        "sequence_length": config.model.seq_length,
        "classes": sorted({type(dataset).__name__ for dataset in prefix_datasets(train)}),
        "train": samples(train),
        "by_prefix": [samples(dataset) for dataset in prefix_datasets(train)],
        "valid": samples(valid),
        "num_test": len(test),
        "first_batch": first["tokens"].tolist(),
    }


def traps(folder: Path) -> dict[str, Any]:
    """Returns what becomes of the configs that lose a mask, here and in Bridge 0.6.0's order."""
    blend = read_blend(folder)
    settings = {
        "seq_length": blend["sequence_length"],
        "random_seed": SEED,
        "blend_per_split": [(blend["train"], None), (blend["valid"], None), None],
        "path_to_cache": "trap_cache",
        "reset_position_ids": False,
        "reset_attention_mask": False,
        "eod_mask_loss": False,
    }
    both = ConfigAndProvider(**settings)
    both.tokenizer = BlendTokenizer(vocab_size=blend["vocab_size"], eod=blend["eod_id"])
    both.finalize()
    subclassed = SubclassedConfig(**settings)
    subclassed.keep_masks = blend["keep_masks"]
    by_isinstance = next(build for kind, build in _REGISTRY.items() if isinstance(both, kind))
    train, _, _ = by_isinstance([None, None, None], both)
    return {
        "subclassed": raised(lambda: get_dataset_provider(subclassed)),
        "asked_by_0_3_1": raised(lambda: get_dataset_provider(both)([1, 1, 1], both)),
        "classes_in_0_6_0": sorted({type(dataset).__name__ for dataset in prefix_datasets(train)}),
        "by_prefix_in_0_6_0": [samples(dataset) for dataset in prefix_datasets(train)],
        "refused_both": raised(lambda: refuse_lost_mask(both)),
        "refused_subclassed": raised(lambda: refuse_lost_mask(subclassed)),
        "refused_ours": raised(
            lambda: refuse_lost_mask(
                BlendDatasetProvider(blend_folder=str(folder), cache_folder="cache", seed=SEED)
            )
        ),
        "refused_masked": raised(
            lambda: gpt_dataset_config(blend, seed=SEED, cache_folder=Path("cache"))
        ),
        "refused_batch": raised(lambda: with_large_batch(folder)),
        "refused_seed": changed_late(folder, "rng", seed=SEED + 1),
        "refused_length": changed_late(folder, "model", seq_length=16),
        "refused_vocabulary": changed_late(folder, "model", vocab_size=50_304),
        "unchanged": changed_late(folder, "rng", seed=SEED),
        "written_of_dataset": sorted(with_blend(folder).to_dict()["dataset"]),
    }


def with_blend(folder: Path) -> ConfigContainer:
    config = container()
    with_provider(config, folder)
    return config


def changed_late(folder: Path, section: str, **values: Any) -> list[str] | None:
    """Returns what building raises where a copy of the config is changed after `use_blend`."""
    config = deepcopy(with_blend(folder))
    for name, value in values.items():
        setattr(getattr(config, section), name, value)
    tokenizer = BlendTokenizer(vocab_size=values.get("vocab_size", VOCAB_SIZE), eod=0)
    context = DatasetBuildContext(8, 8, 8, tokenizer=tokenizer)
    return raised(lambda: config.dataset.build_datasets(context))


def with_large_batch(folder: Path) -> None:
    config = container()
    config.train.global_batch_size = 15
    with_provider(config, folder)


def raised(call: Callable[[], object]) -> list[str] | None:
    """Returns the class and text of what a call raises, or None."""
    try:
        call()
    except (KeyError, TypeError, ValueError, NotImplementedError) as error:
        return [type(error).__name__, str(error)]
    return None


def samples(dataset: Any) -> list[list[int]]:
    taken = (dataset[index] for index in range(len(dataset)))
    return [[*sample["tokens"].tolist(), int(sample["labels"][-1])] for sample in taken]


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["WORLD_SIZE"] = "8"
    view, masked = map(Path, sys.argv[1:])
    ways = {
        "provider_view": (with_provider, view),
        "provider_masked": (with_provider, masked),
        "gpt_view": (with_gpt_dataset_config, view),
    }
    configs = {name: validated(use, folder) for name, (use, folder) in ways.items()}
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]  # public; stubs omit it
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    result: dict[str, Any] = {
        name: built(configs[name], folder) for name, (_, folder) in ways.items()
    }
    result["traps"] = traps(masked)
    Path("result.json").write_text(json.dumps(result))
