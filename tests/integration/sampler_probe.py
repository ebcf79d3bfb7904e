"""Run by the bridge or nemo environment's Python: what its own samplers deal to each rank.

sampler_probe.py bridge|nemo CASES    CASES is JSON: a list of cases as in test_trace_samplers
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from itertools import islice
from pathlib import Path
from typing import Any


def bridge_samplers() -> Any:
    """Returns Bridge's data/samplers.py, loaded alone: its package asks for CUDA libraries."""
    package = PathFinder.find_spec("megatron")
    assert package is not None
    assert package.submodule_search_locations is not None
    for location in package.submodule_search_locations:
        path = Path(location) / "bridge" / "data" / "samplers.py"
        if path.is_file():
            spec = importlib.util.spec_from_file_location("bridge_samplers", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise FileNotFoundError("no megatron/bridge/data/samplers.py in this environment")


def micro_batches(who: str, case: dict[str, Any], rank: int) -> list[list[int]]:
    """Returns the sample numbers of the case's first micro-batches of a rank."""
    shared = {
        "total_samples": case["total_samples"],
        "consumed_samples": case["consumed_samples"],
        "micro_batch_size": case["micro_batch_size"],
        "data_parallel_rank": rank,
        "data_parallel_size": case["data_parallel_size"],
    }
    is_single = case["dataloader_type"] == "single"
    if who == "bridge":
        module = bridge_samplers()
        sampler = (
            module.MegatronPretrainingSampler(**shared)
            if is_single
            else module.MegatronPretrainingRandomSampler(
                [], **shared, data_sharding=case["has_data_sharding"]
            )
        )
    else:
        module = importlib.import_module("nemo.lightning.data")
        sampler = (
            module.MegatronPretrainingSampler(**shared, global_batch_size=case["global_batch_size"])
            if is_single
            else module.MegatronPretrainingRandomSampler(**shared)
        )
    dealt = iter(sampler) if is_single else cycled(sampler)
    return list(islice(dealt, case["num_micro_batches"]))


def cycled(sampler: Any) -> Iterator[list[int]]:
    """Yields from a sampler again and again, as Megatron's cyclic_iter does."""
    while True:
        yield from sampler


if __name__ == "__main__":
    who, cases = sys.argv[1], json.loads(sys.argv[2])
    result = [
        [micro_batches(who, case, rank) for rank in range(case["data_parallel_size"])]
        for case in cases
    ]
    Path("result.json").write_text(json.dumps(result))
