"""Checkpoints of a training run that is under way, from which it goes on as if never interrupted.

    FOLDER/step-<n>/weights/            the model, as `load_checkpoint` reads it
    FOLDER/step-<n>/optimizer/          moments, float32 weights where the model's are not, and the
                                        states of the random generators
    FOLDER/step-<n>/progress.json       what was run, how far it came, its log so far
    FOLDER/step-<n>/trainer_state.json  the log in Hugging Face's layout

A step's folder gets its name when everything in it is written, so what has the name is whole. The
newest two are kept.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from torch import Tensor, distributed

from mira_megatron.atomic_files import NO_SPACE, write_json
from mira_megatron.training.adamw import Float32AdamW
from mira_megatron.training.checkpoint import (
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
)
from mira_megatron.training.training_log import Progress, progress_from_json

NUM_KEPT = 2
_TRACKED = "random.tracked."
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpointing:
    """Where a run keeps its checkpoints, and what its data is."""

    folder: Path
    data_fingerprint: str  # of datasets and initial weights; a run over others is not continued


@dataclass(frozen=True, slots=True)
class TrainingCheckpoints:
    """The checkpoints of one run; every process of it has one of these."""

    folder: Path
    origin: Mapping[str, Any]  # what decides the run's losses, as flat JSON

    def latest(self) -> Path | None:
        """Returns the newest whole checkpoint; None where there is none.

        Removes what a killed run left unfinished. Raises ValueError where the checkpoint belongs to
        another run, naming what differs.
        """
        if distributed.get_rank() == 0:
            for left in self.folder.glob(".step-*"):
                shutil.rmtree(left, ignore_errors=True)
        distributed.barrier()
        kept = self._kept()
        if not kept:
            return None
        _refuse_other_origin(kept[-1], self.origin)
        return kept[-1]

    def save(
        self, model: GPTModel, optimizer: Float32AdamW, progress: Progress, max_steps: int
    ) -> None:
        """Writes the checkpoint of this step, and removes those that are no longer kept.

        Raises OSError (ENOSPC) where the disk is full; older checkpoints stay.
        """
        unfinished = self.folder / f".step-{progress.step}"
        try:
            save_checkpoint(model, unfinished / "weights")
            beside_weights = {**dict(optimizer.tensors()), **_random_states()}
            save_tensors(beside_weights, unfinished / "optimizer")
            if distributed.get_rank() == 0:
                state = {"origin": self.origin, "progress": progress.to_json()}
                write_json(unfinished / "progress.json", state)
                progress.state(max_steps).save(unfinished / "trainer_state.json")
                os.replace(unfinished, self.folder / f"step-{progress.step}")
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            shutil.rmtree(unfinished, ignore_errors=True)
            raise OSError(error.errno, f"{error.strerror}. {self.last_good()}") from error
        if distributed.get_rank() == 0:
            self._remove_older()
        distributed.barrier()

    def load(self, folder: Path, model: GPTModel, optimizer: Float32AdamW) -> Progress:
        """Brings model, optimizer and random generators to where `folder` was written."""
        progress = progress_from_json(_progress_file(folder)["progress"])
        load_checkpoint(model, folder / "weights")
        random_states = _random_states()
        load_tensors({**dict(optimizer.tensors()), **random_states}, folder / "optimizer")
        optimizer.resume_after(progress.step)
        _set_random_states(random_states)
        return progress

    def last_good(self) -> str:
        """Returns a sentence about where the run could go on."""
        kept = self._kept()
        if not kept:
            return f"No checkpoint had been written to {self.folder} before"
        return f"The last good checkpoint is {kept[-1]}"

    def _kept(self) -> list[Path]:
        """Returns the whole checkpoints, oldest first."""
        found = [(_STEP.fullmatch(path.name), path) for path in self.folder.glob("step-*")]
        return [path for _, path in sorted((int(m[1]), path) for m, path in found if m)]

    def _remove_older(self) -> None:
        for path in self._kept()[:-NUM_KEPT]:
            # Under a name that `latest` sweeps away, for a kill in the middle of it.
            hidden = path.with_name(f".{path.name}")
            os.replace(path, hidden)
            shutil.rmtree(hidden)


def _progress_file(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads((folder / "progress.json").read_bytes())
    return content


def _refuse_other_origin(folder: Path, origin: Mapping[str, Any]) -> None:
    then: dict[str, Any] = _progress_file(folder)["origin"]
    now: dict[str, Any] = orjson.loads(orjson.dumps(origin))
    differences = [
        f"{name} was {then.get(name)!r} and is {now.get(name)!r}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
    if differences:
        raise ValueError(
            f"{folder}: this checkpoint belongs to another run: {'; '.join(differences)}. Set the "
            f"old values again, or delete {folder.parent} to begin anew."
        )


def _random_states() -> dict[str, Tensor]:
    """Returns the state of each generator as bytes; all processes draw alike."""
    states = {"random.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
        for name, state in get_cuda_rng_tracker().get_states().items():
            states[f"{_TRACKED}{name}"] = state
    return states


def _set_random_states(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["random.torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(states["random.cuda"])
        tracked = {name: state for name, state in states.items() if name.startswith(_TRACKED)}
        get_cuda_rng_tracker().set_states(
            {name.removeprefix(_TRACKED): state for name, state in tracked.items()}
        )
