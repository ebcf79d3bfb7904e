"""Run by the nemo environment's Python.

nemo_blend_probe.py TOKENIZER VIEW MASKED WEIGHTED     what NeMo makes of blends of a selection
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiddle
import nemo.lightning as nl
import nemo_run as run
import torch
from megatron.core import parallel_state
from nemo.collections.common.tokenizers.huggingface.auto_tokenizer import AutoTokenizer
from nemo.collections.llm.gpt.data.pre_training import PreTrainingDataModule
from nemo.lightning import io

from mira_megatron.tokenization.keep_mask_dataset import KeepMaskGPTDataset
from mira_megatron.tokenization.megatron_datasets import prefix_datasets, read_blend
from mira_megatron.training.nemo_blend import blend_data, blend_paths

SEED = 3


def our_module(folder: Path, tokenizer: str) -> Any:
    """Returns our data module as a recipe builds it, and then a checkpoint builds it again."""
    config = blend_data(
        folder,
        tokenizer=run.Config(AutoTokenizer, pretrained_model_name=tokenizer, use_fast=True),
        micro_batch_size=1,
        global_batch_size=2,
        seed=SEED,
        cache_folder=Path("cache"),
    )
    module = io.reinit(fiddle.build(config))
    module.num_workers = 0
    return module


def stock_module(folder: Path, tokenizer: str, **changes: Any) -> Any:
    """Returns NeMo's own data module, on the paths of a blend."""
    blend = read_blend(folder)
    return PreTrainingDataModule(
        paths=blend_paths(blend),
        seq_length=blend["sequence_length"],
        tokenizer=AutoTokenizer(tokenizer, use_fast=True),
        micro_batch_size=1,
        global_batch_size=2,
        num_workers=0,
        seed=SEED,
        index_mapping_dir="stock_cache",
        num_train_samples=blend["num_train_samples"],
        **changes,
    )


def set_up(module: Any, num_steps: int, validation: float = 3) -> Any:
    """Returns the module after Lightning's own call, with a real trainer attached."""
    module.trainer = nl.Trainer(
        accelerator="cpu",
        max_steps=num_steps,
        val_check_interval=2,
        limit_val_batches=validation,
        limit_test_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.setup("fit")
    return module


def iterated(module: Any) -> dict[str, Any]:
    """Returns what NeMo's own sampler and loaders give of the datasets."""
    loader = module.data_sampler.transform_dataloader(module.train_dataloader())
    validation = module.data_sampler.transform_dataloader(module.val_dataloader())
    return {
        "classes": sorted({type(each).__name__ for each in prefix_datasets(module._train_ds)}),
        "train": samples(module._train_ds),
        "by_prefix": [samples(each) for each in prefix_datasets(module._train_ds)],
        "valid": samples(module._validation_ds),
        "batches": [batch["tokens"].tolist() for batch in loader],
        "losses": sorted({float(batch["loss_mask"].min()) for batch in loader}),
        "num_validation_batches": sum(1 for _ in validation),
    }


def raised(call: Callable[[], object]) -> list[str] | None:
    """Returns the class and text of what a call raises, or None."""
    try:
        call()
    except (AttributeError, TypeError, ValueError) as error:
        return [type(error).__name__, str(error)]
    return None


def samples(dataset: Any) -> list[list[int]]:
    taken = (dataset[index] for index in range(len(dataset)))
    return [[*sample["tokens"].tolist(), int(sample["labels"][-1])] for sample in taken]


def main() -> None:
    tokenizer, *folders = sys.argv[1:]
    view, masked, weighted = map(Path, folders)
    result: dict[str, Any] = {
        # Before ours: NeMo marks its class at its first use, and ours inherits the mark.
        "stock_view": iterated(set_up(stock_module(view, tokenizer), 7)),
        "view": iterated(set_up(our_module(view, tokenizer), 7)),
        "masked": iterated(set_up(our_module(masked, tokenizer), 7)),
        "stock_masked": iterated(set_up(stock_module(masked, tokenizer), 7)),
        "weighted": our_module(weighted, tokenizer).build_kwargs["blend_per_split"],
        "whole_passes": samples(
            set_up(our_module(view, tokenizer), 7, validation=1.0)._validation_ds
        ),
        "too_long": raised(lambda: set_up(our_module(masked, tokenizer), 8)),
        "stock_with_our_class": raised(
            lambda: set_up(stock_module(masked, tokenizer, dataset_cls=KeepMaskGPTDataset), 7)
        ),
    }
    Path("result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    torch.set_num_threads(1)
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]  # public; stubs omit it
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    main()
