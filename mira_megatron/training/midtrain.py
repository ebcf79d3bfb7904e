"""Mid-train on a blend, straight on megatron-core: short runs on one machine, CPU included.

Reads   blends/<arm>/blend.json, the datasets it names, and their tokenizer; midtrain.base, a
        Hugging Face folder to start from, or random weights of the shape midtrain.model
Writes  checkpoints/<arm>/trainer_state.json: loss and validation loss by step, without times
        checkpoints/<arm>/coverage.json: which tokens of which prefix one pass reads, replayed from
        the indices Megatron built
        checkpoints/<arm>/weights/: a megatron.core.dist_checkpointing checkpoint
        checkpoints/<arm>/hf/: the same as transformers and vLLM load it, where the tokenizer can
        be exported with such a model (training.hf_tokenizer)

An arm is trained once per seed (trained_arms.py); <arm> is then <arm>.seed<seed> for all but the
first.

With trainer=bridge, recipes/midtrain.py has trained the arm on a cluster, and this stage takes over
its export: checkpoints/<arm>/hf/ and training.json in place of all of these (bridge_midtrain.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mira_megatron import layout
from mira_megatron.config import Recipe, fingerprinted, typed
from mira_megatron.corpus.raw_digests import exported_weights_digest
from mira_megatron.corpus.recipe_sources import recipe_sources
from mira_megatron.stage import Unit
from mira_megatron.tokenization.adopted import adopted_sources
from mira_megatron.training.arm_folders import trained_as
from mira_megatron.training.cluster_midtrain import ClusterArm, cluster_arms, weights_of
from mira_megatron.training.cluster_training import BRIDGE, trainer_of
from mira_megatron.training.model_shape import ModelShape
from mira_megatron.training.schedule import TrainSettings
from mira_megatron.training.trained_arms import trained_arms

VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class MidtrainSettings:
    """What one arm's unit needs."""

    arm: str
    model: ModelShape | None  # of random weights; None: the base's
    base: Path | None
    training: TrainSettings


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per arm; sample length and seed are those of the blend and the recipe."""
    where = f"{recipe.path}: midtrain"
    if trainer_of(recipe, "midtrain") == BRIDGE:
        return [_cluster_unit(recipe, arm) for arm in cluster_arms(recipe)]
    sections = dict(recipe.values.get("midtrain") or {})
    sections.pop("trainer", None)
    base = midtrain_base(recipe)
    if set(sections) != {"base" if base else "model", "training"}:
        raise ValueError(
            f"{where}: expected the section training: and either base (a Hugging Face folder) or "
            f"the section model: (of random weights), got {', '.join(sorted(sections)) or 'none'}"
        )
    parts = [sections["training"], *([] if base else [sections["model"]])]
    if not all(isinstance(section, Mapping) for section in parts):
        raise ValueError(f"{where}: model: and training: must be mappings, got {sections!r}")
    sequence_length = (recipe.values.get("blend") or {}).get("sequence_length")
    model = None
    if base is None:
        shape = {"max_sequence_length": sequence_length, **sections["model"]}
        model = typed(ModelShape, shape, where=f"{where}.model")
    units = []
    for arm in trained_arms(recipe):
        if arm.has_midtraining:
            given = {"sequence_length": sequence_length, "seed": arm.seed}
            training = typed(
                TrainSettings, {**sections["training"], **given}, where=f"{where}.training"
            )
            settings = MidtrainSettings(arm=arm.arm, model=model, base=base, training=training)
            units.append(_unit(recipe, arm.name, settings))
    return units


def midtrain_base(recipe: Recipe) -> Path | None:
    """Returns the folder of the weights that every arm starts from; None: random ones."""
    base = (recipe.values.get("midtrain") or {}).get("base")
    return None if base is None else recipe.path_of(str(base))


def base_digest(recipe: Recipe, base: Path | None) -> Callable[[], dict[str, str]] | None:
    """Returns what digests the base when a unit that starts from it is to be run."""
    if base is None:
        return None
    cache = recipe.run_folder / ".raw_digests" / "midtrain-base.json"
    return lambda: {"base weights": exported_weights_digest(base, cache)}


def _unit(recipe: Recipe, name: str, settings: MidtrainSettings) -> Unit:
    model = {} if settings.model is None else {"model": asdict(settings.model)}
    return Unit(
        stage="midtrain",
        name=name,
        folder=layout.checkpoints(name),
        version=VERSION,
        config={**model, "training": fingerprinted(settings.training)},
        # Of the blend's files, the tokenizer is the one that the export needs.
        upstream=(*_upstream(recipe, settings.arm), layout.TOKENIZER),
        raw_files=base_digest(recipe, settings.base),
        can_be_left=True,
        work="mira_megatron.training.run_midtrain:midtrain",
        settings=settings,
    )


def _cluster_unit(recipe: Recipe, arm: ClusterArm) -> Unit:
    return Unit(
        stage="midtrain",
        name=arm.name,
        folder=layout.checkpoints(arm.name),
        version=VERSION,
        config=trained_as(arm.recipe, arm.choices),
        upstream=_upstream(recipe, arm.arm),
        raw_files=weights_of(recipe.run_folder, arm),
        work="mira_megatron.training.bridge_midtrain:take_over_arm",
        settings=arm,
    )


def _upstream(recipe: Recipe, arm: str) -> tuple[str, ...]:
    """The views hold no tokens: what is trained on lies in the token datasets behind them."""
    sources = sorted([*recipe_sources(recipe), *adopted_sources(recipe)])
    return (layout.blend(arm), *(layout.tokens(name) for name in sources))
