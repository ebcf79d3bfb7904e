"""The loss of every trained arm on the documents that no arm was trained on.

Reads   tokens/<source>/, records/<source>/ (the bytes of a text), tokenizer/; checkpoints/<model>/,
        or for the arm that is the base midtrain.base
Writes  held_out/<model>/documents.parquet: one row per held-out document of every source
        held_out/<model>/held_out.json: per source and in all documents, tokens, bytes, nats and
        bits per byte

Every document is read alone and from its start, in windows as long as the model allows that overlap
by half: every token but the first is predicted once, the one that ends the document among them.
Validation while training reads the same documents cut by seed into sequences; this is what arms
and seeds are compared by, so it depends on the weights and on nothing else.

A model is an arm with a seed (trained_arms.py); the base, which no seed changes, is read once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.retention.documents import SharedTables
from mira_megatron.stage import Unit
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.training.cluster_training import BRIDGE, trainer_of
from mira_megatron.training.midtrain import (
    MidtrainSettings,
    base_digest,
    midtrain_base,
)
from mira_megatron.training.midtrain import units as midtrain_units
from mira_megatron.training.trained_arms import SECTION, TrainedArm, trained_arms

VERSION = 1
DOCUMENTS = "documents.parquet"
SUMMARY = "held_out.json"
_CLUSTER_PRECISION = "bfloat16"  # of all recipes in recipes/midtrain.py

SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("num_tokens", pa.int64(), nullable=False),  # as in the .idx, EOD included
        pa.field("num_bytes", pa.int64(), nullable=False),  # of its text in UTF-8
        pa.field("nats", pa.float64(), nullable=False),  # of all tokens but the first
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutSettings:
    """What one model's unit needs."""

    checkpoint: str | None  # folder of what was trained here; None: the weights of `base`
    base: Path | None  # a Hugging Face folder; None: it was trained from random weights
    precision: str  # of weights and activations, as in training
    num_threads: int | None  # of the CPU, as in training; None: as many as torch takes
    sources: tuple[str, ...]  # of the recipe, sorted
    adopted: frozenset[str]  # those of them without records
    shared: SharedTables = field(default_factory=SharedTables, repr=False, compare=False)


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per model; none without the sections ablation and midtrain."""
    if SECTION not in recipe.values or "midtrain" not in recipe.values:
        return []
    adopted = frozenset(adopted_sources(recipe))
    sources = tuple(sorted([*recipe_sources(recipe), *adopted]))
    precision, num_threads = _precision(recipe), _num_threads(recipe)
    shared = SharedTables()
    return [
        _unit(
            recipe,
            model,
            HeldOutSettings(
                checkpoint=_checkpoint(recipe, model),
                base=_hf_folder(recipe, model),
                precision=precision,
                num_threads=num_threads,
                sources=sources,
                adopted=adopted,
                shared=shared,
            ),
        )
        for model in held_out_models(recipe)
    ]


def held_out_models(recipe: Recipe) -> list[TrainedArm]:
    """Returns the models whose loss is taken: every arm once per seed, the base once."""
    return [model for model in trained_arms(recipe) if model.has_midtraining or _is_first(model)]


def _is_first(model: TrainedArm) -> bool:
    return model.name == model.arm


def _precision(recipe: Recipe) -> str:
    """Returns the type of the weights that are compared; all arms have one."""
    settings = [unit.settings for unit in midtrain_units(recipe)]
    own = {each.training.precision for each in settings if isinstance(each, MidtrainSettings)}
    return own.pop() if own else _CLUSTER_PRECISION


def _num_threads(recipe: Recipe) -> int | None:
    """Returns the CPU threads of the training; its models are measured with as many."""
    settings = [unit.settings for unit in midtrain_units(recipe)]
    own = {each.training.num_threads for each in settings if isinstance(each, MidtrainSettings)}
    return own.pop() if own else None


def _checkpoint(recipe: Recipe, model: TrainedArm) -> str | None:
    is_trained_here = model.has_midtraining and trainer_of(recipe, "midtrain") != BRIDGE
    return layout.checkpoints(model.name) if is_trained_here else None


def _hf_folder(recipe: Recipe, model: TrainedArm) -> Path | None:
    """Returns the export of what was trained on a cluster, else the base."""
    if model.has_midtraining and trainer_of(recipe, "midtrain") == BRIDGE:
        return recipe.run_folder / layout.checkpoints(model.name) / layout.HF_EXPORT
    return midtrain_base(recipe)


def _unit(recipe: Recipe, model: TrainedArm, settings: HeldOutSettings) -> Unit:
    return Unit(
        stage="held-out",
        name=model.name,
        folder=layout.held_out(model.name),
        version=VERSION,
        config={
            "precision": settings.precision,
            **({} if settings.num_threads is None else {"num_threads": settings.num_threads}),
        },
        upstream=(
            *([layout.checkpoints(model.name)] if model.has_midtraining else []),
            *(layout.tokens(source) for source in settings.sources),
            *(layout.records(name) for name in settings.sources if name not in settings.adopted),
            layout.TOKENIZER,
        ),
        # What was mid-trained has the base in its own fingerprint.
        raw_files=None if model.has_midtraining else base_digest(recipe, midtrain_base(recipe)),
        can_be_left=True,
        work="mira_megatron.training.run_held_out:held_out",
        settings=settings,
    )
