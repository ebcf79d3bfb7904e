"""What is trained: every arm of a recipe, once per seed, and the base without mid-training.

    ablation:
      seeds: [11, 12, 13]   # of initial order and data order; without it the recipe's seed alone
      base_arm: base_sft    # tuned from midtrain.base as it is; needs that

Which documents an arm keeps depends on the recipe's seed and not on these: a table's spread over
seeds is that of training. The first seed's files lie under the arm's own name, so that a seed that
is added later leaves them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mira_megatron.config import Recipe, check_name

SECTION = "ablation"


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationConfig:
    """The arms that are no selection, and how often each is trained."""

    seeds: list[int] = field(default_factory=list)
    base_arm: str | None = None
    reference: str | None = None  # the arm that others are compared with (ablation/ablation.py)
    resamples: int = 10_000

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={self.seeds} names one twice")
        if any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds={self.seeds} must not be negative")
        if self.resamples < 100:
            raise ValueError(f"resamples={self.resamples} must be at least 100")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedArm:
    """One model of the comparison."""

    name: str  # of its folders
    arm: str
    seed: int
    has_midtraining: bool = True  # False: its weights are the base's


def ablation_config(recipe: Recipe) -> AblationConfig:
    """Returns the section, empty where there is none; ValueError for a base arm that cannot be."""
    config = recipe.section(SECTION, AblationConfig)
    if config.base_arm is not None:
        where = f"{recipe.path}: {SECTION}.base_arm"
        check_name(where, config.base_arm)
        if config.base_arm in recipe.mapping("arms"):
            raise ValueError(f"{where}: {config.base_arm!r} is the name of an arm; take another")
        if not (recipe.values.get("midtrain") or {}).get("base"):
            raise ValueError(
                f"{where}={config.base_arm}: needs midtrain.base, the model that it is; arms from "
                "random weights have none in common"
            )
    return config


def trained_arms(recipe: Recipe) -> list[TrainedArm]:
    """Returns all models that the recipe mid-trains or tunes, arm by arm, seed by seed."""
    config = ablation_config(recipe)
    seeds = config.seeds or [recipe.seed]
    names = [(arm, True) for arm in recipe.mapping("arms")]
    if config.base_arm is not None:
        names.append((config.base_arm, False))
    return [
        TrainedArm(
            name=trained_name(arm, seed, seeds), arm=arm, seed=seed, has_midtraining=has_midtraining
        )
        for arm, has_midtraining in names
        for seed in seeds
    ]


def trained_name(arm: str, seed: int, seeds: list[int]) -> str:
    """Returns the name of one arm's folders for a seed; no arm can have one with a dot."""
    return arm if seed == seeds[0] else f"{arm}.seed{seed}"
