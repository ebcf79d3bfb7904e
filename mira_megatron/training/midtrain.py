"""Mid-train on a blend, straight on megatron-core: short runs on one machine, CPU included.

Reads   blends/<arm>/blend.json, the datasets it names, and their tokenizer
Writes  checkpoints/<arm>/trainer_state.json: loss and validation loss by step, without times
        checkpoints/<arm>/coverage.json: which tokens of which prefix one pass reads, replayed from
        the indices Megatron built
        checkpoints/<arm>/weights/: a megatron.core.dist_checkpointing checkpoint
        checkpoints/<arm>/hf/: the same as transformers and vLLM load it, where the tokenizer can
        be exported with such a model (training.hf_tokenizer)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mira_megatron import layout
from mira_megatron.config import Recipe, fingerprinted, typed
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.stage import Unit
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.schedule import TrainSettings

VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class MidtrainSettings:
    """What one arm's unit needs."""

    arm: str
    model: ModelShape
    training: TrainSettings


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm; sample length and seed are those of the blend and the recipe."""
    where = f"{recipe.path}: midtrain"
    sections = recipe.values.get("midtrain") or {}
    if not isinstance(sections, Mapping) or set(sections) != {"model", "training"}:
        raise ValueError(f"{where}: expected the two sections model: and training:")
    if not all(isinstance(section, Mapping) for section in sections.values()):
        raise ValueError(f"{where}: model: and training: must be mappings, got {sections!r}")
    sequence_length = (recipe.values.get("blend") or {}).get("sequence_length")
    given = {"sequence_length": sequence_length, "seed": recipe.seed}
    model = typed(
        ModelShape,
        {"max_sequence_length": sequence_length, **sections["model"]},
        where=f"{where}.model",
    )
    training = typed(TrainSettings, {**sections["training"], **given}, where=f"{where}.training")
    return [_unit(recipe, arm, model, training) for arm in recipe.mapping("arms")]


def _unit(recipe: Recipe, arm: str, model: ModelShape, training: TrainSettings) -> Unit:
    sources = sorted([*recipe_sources(recipe), *adopted_sources(recipe)])
    return Unit(
        stage="midtrain",
        name=arm,
        folder=layout.checkpoints(arm),
        version=VERSION,
        config={"model": asdict(model), "training": fingerprinted(training)},
        # The views hold no tokens: what is trained on lies in the token datasets behind them.
        upstream=(layout.blend(arm), layout.TOKENIZER, *(layout.tokens(name) for name in sources)),
        work="mira_megatron.training.run_midtrain:midtrain",
        settings=MidtrainSettings(arm=arm, model=model, training=training),
    )
