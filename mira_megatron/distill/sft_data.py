"""Make a source group's teacher ratings into what its scorer is trained on.

Reads   records/<source>/part-*.parquet and teacher_ratings/<rubric>/<source>/part-*.parquet of the
        group's sources, anchors/<rubric>/<group>/anchors.jsonl
Writes  sft/<rubric>/<group>/: the files of sft_files.py
Keeps   the distill half of the labels, as far as answered in full and fitting the sequence length;
        the reliability half is in none of the files, and no tokenizer is trained on it
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from mira_megatron import layout
from mira_megatron.config import Recipe
from mira_megatron.distill.distill_config import DistillConfig, distill_config
from mira_megatron.distill.scorer_tokenizer import base_tokenizer_file
from mira_megatron.grouping.source_groups import SourceGroup, source_groups
from mira_megatron.rubric.prompts import score_prompt_key
from mira_megatron.shards import file_digest
from mira_megatron.stage import Unit

VERSION = 1

# What of the section decides these files; `base` does by its tokenizer, which is fingerprinted.
_DECIDING = (
    "train_vocab_size",
    "prompt",
    "references",
    "answers",
    "max_record_tokens",
    "sequence_length",
    "validation_fraction",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SftSettings:
    """What one group's unit needs."""

    rubric: str
    group: str
    family: str
    sources: tuple[str, ...]
    seed: int
    config: DistillConfig
    base_tokenizer: Path | None


def units(recipe: Recipe) -> list[Unit]:
    """Returns one unit per source group; none without a section `distill`."""
    if "distill" not in recipe.values:
        return []
    config = distill_config(recipe)
    tokenizer = base_tokenizer_file(recipe, config)
    return [_unit(recipe, config, tokenizer, group) for group in source_groups(recipe).values()]


def _unit(
    recipe: Recipe, config: DistillConfig, tokenizer: Path | None, group: SourceGroup
) -> Unit:
    values = asdict(config)
    return Unit(
        stage="sft-data",
        name=group.name,
        folder=layout.sft(recipe.rubric, group.name),
        version=VERSION,
        config={
            **{name: values[name] for name in _DECIDING},
            "tokenizer": None if tokenizer is None else file_digest(tokenizer),
            "prompt_key": score_prompt_key(group.family, config.form),
            "seed": recipe.seed,
        },
        upstream=(
            *(layout.records(source) for source in group.members),
            *(layout.teacher_ratings(recipe.rubric, source) for source in group.members),
            layout.anchors(recipe.rubric, group.name),
        ),
        work="mira_megatron.distill.sft_work:sft_data",
        settings=SftSettings(
            rubric=recipe.rubric,
            group=group.name,
            family=group.family,
            sources=group.members,
            seed=recipe.seed,
            config=config,
            base_tokenizer=tokenizer,
        ),
    )
