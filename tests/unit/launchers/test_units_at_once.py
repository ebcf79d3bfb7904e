"""Models that are made beside each other, and when they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mira_megatron.config import Recipe, fingerprinted
from mira_megatron.file_lock import LockHeldError, held_lock
from mira_megatron.launchers import units_at_once
from mira_megatron.launchers.units_at_once import UnitsAtOnce, check_threads
from mira_megatron.manifest import Counts, read_manifest
from mira_megatron.stage import Resources, Run, Unit, WorkResult, Workspace, run_unit
from mira_megatron.training.schedule import TrainSettings

TRAINING: dict[str, Any] = {
    "micro_batch_size": 1,
    "global_batch_size": 1,
    "train_iters": 2,
    "learning_rate": 1e-3,
    "min_learning_rate": 1e-4,
    "warmup_iters": 1,
    "weight_decay": 0.1,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "clip_grad": 1.0,
    "eval_interval": 2,
    "log_interval": 1,
}


def work(workspace: Workspace, settings: object) -> WorkResult:
    return WorkResult(counts=Counts(num_in=0, num_out=0))


def unit(name: str, *upstream: str) -> Unit:
    return Unit(
        stage="midtrain",
        name=name,
        folder=f"checkpoints/{name}",
        version=1,
        config={},
        upstream=upstream,
        can_be_left=True,
        work=f"{__name__}:work",
    )


def recipe(*arms: str, **training: object) -> Recipe:
    section = {"model": {}, "training": {**TRAINING, **training}}
    return Recipe(
        path=Path("/no/such.yaml"),
        run_folder=Path("/no/run"),
        reuse=(),
        seed=7,
        rubric="r",
        values={"arms": {arm: {} for arm in arms}, "midtrain": section},
    )


def test_unit_that_another_works_on_is_left_to_it(tmp_path: Path) -> None:
    run, mine = Run(folder=tmp_path), unit("a")
    with (
        held_lock(tmp_path / ".locks/checkpoints.a.lock", "held"),
        pytest.raises(LockHeldError, match="another process is working on midtrain a"),
    ):
        run_unit(mine, run, Resources(is_shared=True))
    run_unit(mine, run, Resources(is_shared=True))
    assert read_manifest(tmp_path / mine.folder) is not None


@pytest.mark.parametrize(
    "units",
    [
        [unit("a")],  # one alone has all threads
        [unit("a", "blends/a"), unit("b", "blends/b")],  # what they read is not there
        [replace(unit("a"), can_be_left=False), replace(unit("b"), can_be_left=False)],
    ],
)
def test_nothing_is_started_unless_several_can_be_run(
    tmp_path: Path, units: list[Unit], capsys: pytest.CaptureFixture[str]
) -> None:
    models = recipe("a", "b", num_threads=1)
    at_once = UnitsAtOnce(recipe=models, number=2, workers=2, log_level="info")
    at_once("midtrain", units, Run(folder=tmp_path))
    assert at_once.made == set()
    # The recipe is not there: whoever was started would say so.
    assert "no such file" not in capsys.readouterr().err


@pytest.mark.parametrize(("engine", "number"), [("transformers", 2), ("vllm", 0)])
def test_models_that_vllm_loads_are_evaluated_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, number: int
) -> None:
    started: list[int] = []
    monkeypatch.setattr(
        units_at_once, "run_workers", lambda words, number, num_threads: started.append(number)
    )
    models = recipe("a", "b", num_threads=1)
    section = {"engine": engine, **({"num_threads": 1} if number else {})}
    models = replace(models, values={**models.values, "eval": section})
    at_once = UnitsAtOnce(recipe=models, number=2, workers=2, log_level="info")
    at_once("eval", [unit("a"), unit("b")], Run(folder=tmp_path))
    assert sum(started) == number


def test_models_beside_each_other_need_a_number_of_threads() -> None:
    with pytest.raises(ValueError, match=r"midtrain\.training\.num_threads is not set"):
        check_threads(recipe("a", "b"), ["midtrain", "held-out"])
    check_threads(recipe("a", "b", num_threads=1), ["midtrain", "held-out"])
    check_threads(recipe("a"), ["midtrain"])
    check_threads(recipe("a", "b"), ["score"])


def test_number_of_threads_is_fingerprinted_only_where_it_is_given() -> None:
    without = TrainSettings(**TRAINING, sequence_length=8, seed=7)
    assert "num_threads" not in fingerprinted(without)
    assert fingerprinted(replace(without, num_threads=1))["num_threads"] == 1
    with pytest.raises(ValueError, match="num_threads=0 must be positive"):
        replace(without, num_threads=0)
