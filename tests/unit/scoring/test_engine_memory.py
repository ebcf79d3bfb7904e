from __future__ import annotations

import weakref
from pathlib import Path

from tiny_scorer import write_tiny_scorer

from mira_megatron.scoring.generation import LocalJudge, LocalModel
from mira_megatron.scoring.transformers_engine import TransformersEngine


def test_local_judge_that_is_closed_lets_go_of_its_model(tmp_path: Path) -> None:
    settings = LocalModel(
        folder=write_tiny_scorer(tmp_path, ("depth",), is_moe=False, num_steps=1),
        dtype="float32",
        max_model_len=None,
        seed=0,
        batch_size=1,
        gpu_memory_utilization=0.9,
        tensor_parallel_size=1,
    )
    engine = TransformersEngine(settings)
    model = weakref.ref(engine._model)
    LocalJudge(engine, max_tokens=8, is_expected=False).close()
    assert model() is None
