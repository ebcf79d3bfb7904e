"""The order that traces assume, beside the samplers of Megatron-Bridge 0.3.1 and NeMo 2.7.3."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import environment_python, run_probe

from mira_megatron.provenance.batch_order import batch_order
from mira_megatron.provenance.cyclic_order import CyclicOrder

pytestmark = [pytest.mark.integration, pytest.mark.megatron]

# micro_batch_size, data_parallel_size, micro-batches per iteration
SIZES = [(1, 1, 1), (2, 3, 1), (3, 2, 2), (1, 4, 3)]


def cases(who: str) -> list[dict[str, Any]]:
    """Returns fresh and resumed trainings, through two epochs where the loader is cyclic."""
    loaders = [("single", True), ("cyclic", True)]
    if who == "bridge":
        loaders.append(("cyclic", False))
    found = []
    for (micro, ranks, accumulated), (loader, is_sharded) in product(SIZES, loaders):
        at_once = micro * ranks
        size = at_once * accumulated
        # Without sharding, a remainder is what lets Megatron's ranks drift apart.
        total = 10 * at_once + (0 if loader == "cyclic" and not is_sharded else at_once - 1)
        num_iterations = total // size if loader == "single" else 2 * total // size
        for done in (0, 2):
            found.append(
                {
                    "dataloader_type": loader,
                    "has_data_sharding": is_sharded,
                    "total_samples": total,
                    "consumed_samples": done * size,
                    "micro_batch_size": micro,
                    "global_batch_size": size,
                    "data_parallel_size": ranks,
                    "done": done,
                    "num_iterations": num_iterations - done,
                    "num_micro_batches": accumulated * (num_iterations - done),
                }
            )
    return found


def expected(case: dict[str, Any]) -> list[list[list[int]]]:
    order = batch_order(
        micro_batch_size=case["micro_batch_size"],
        global_batch_size=case["global_batch_size"],
        data_parallel_size=case["data_parallel_size"],
    )
    iterations = range(case["done"] + 1, case["done"] + 1 + case["num_iterations"])
    dealt = []
    for rank in range(case["data_parallel_size"]):
        positions = np.concatenate([order.positions(each, rank) for each in iterations])
        if case["dataloader_type"] == "cyclic":
            cyclic = CyclicOrder(
                order=order,
                num_samples=case["total_samples"],
                has_data_sharding=case["has_data_sharding"],
            )
            positions = cyclic.samples(positions)
        dealt.append(positions.tolist())
    return dealt


@pytest.mark.parametrize("who", ["bridge", "nemo"])
def test_samplers_deal_what_traces_say(tmp_path: Path, who: str) -> None:
    python = environment_python(who)
    asked = cases(who)
    dealt = run_probe(python, ["sampler_probe.py"], [who, json.dumps(asked)], tmp_path)
    for case, ranks in zip(asked, dealt, strict=True):
        assert ranks == expected(case), case
