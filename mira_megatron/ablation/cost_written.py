"""What arms took, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mira_megatron import layout
from mira_megatron.ablation.cost import OWN, ArmCost, Cost, StageCost
from mira_megatron.atomic_files import write_bytes, write_json
from mira_megatron.config import Recipe
from mira_megatron.written_numbers import MISSING, decimal, duration, grouped
from mira_megatron.written_tables import markdown_table, markdown_text

COST_JSON, COST_MD = "cost.json", "cost.md"
SCHEMA_VERSION = 1
_STAGE_HEADINGS = ["stage", "units", "time", "answers", "tokens in", "tokens out", "GPU-hours"]


def write_cost(recipe: Recipe, cost: Cost) -> str:
    """Writes what a recipe's arms took until now, and returns it as Markdown."""
    folder = recipe.run_folder / layout.COST
    markdown = cost_markdown(cost)
    write_json(folder / COST_JSON, cost_json(cost))
    write_bytes(folder / COST_MD, markdown.encode())
    return markdown


def cost_json(cost: Cost) -> dict[str, Any]:
    """Returns every number as JSON has it; times in seconds."""
    content = asdict(cost)
    for arm, found in zip(cost.arms, content["arms"], strict=True):
        found["seconds"] = arm.seconds
    return {"schema_version": SCHEMA_VERSION, **content}


def cost_markdown(cost: Cost) -> str:
    """Returns the document."""
    lines = [
        f"# Cost: {markdown_text(cost.recipe_name)}",
        "",
        "Time of the attempt that ended each unit, on the machine that made it, also where the "
        "unit was taken over from another run. GPU-hours where the job's script says how many GPUs "
        "it held.",
        "",
        "## Of each arm alone",
        "",
        *_arms(cost),
        "",
    ]
    for score in cost.scores:
        arms = ", ".join(map(markdown_text, score.arms))
        lines += [f"## Of the score {markdown_text(score.score)}", "", f"Once for {arms}.", ""]
        lines += [*_stages(score.stages), ""]
    lines += ["## Of all arms together", "", *_stages(cost.of_all), ""]
    notes = _notes(cost)
    lines += [*(f"* {note}" for note in notes), ""] if notes else []
    return "\n".join(lines).rstrip() + "\n"


def _arms(cost: Cost) -> list[str]:
    used = {each.stage for arm in cost.arms for each in arm.stages}
    stages = [stage for stage in OWN if stage in used]
    rows = [
        [
            markdown_text(arm.arm),
            MISSING if arm.score is None else markdown_text(arm.score),
            *(_time_of(arm, stage) for stage in stages),
            _time(arm.seconds),
            _gpu_hours(arm.stages),
        ]
        for arm in cost.arms
    ]
    return markdown_table(["arm", "score", *stages, "in all", "GPU-hours"], rows)


def _time_of(arm: ArmCost, stage: str) -> str:
    """Returns the time of a stage; nothing where the arm has none of it."""
    return next((_time(each.seconds) for each in arm.stages if each.stage == stage), "")


def _stages(stages: Sequence[StageCost]) -> list[str]:
    rows = [
        [
            each.stage,
            grouped(each.num_units),
            _time(each.seconds),
            "" if each.num_answers is None else grouped(each.num_answers),
            "" if each.num_answers is None else grouped(each.prompt_tokens),
            "" if each.num_answers is None else grouped(each.output_tokens),
            _gpu_hours([each]),
        ]
        for each in stages
    ]
    return markdown_table(_STAGE_HEADINGS, rows)


def _notes(cost: Cost) -> list[str]:
    every = [(arm.arm, arm.stages) for arm in cost.arms]
    every += [(score.score, score.stages) for score in cost.scores]
    every += [("all arms", cost.of_all)]
    return [
        f"{markdown_text(name)}, {each.stage}: {reason}"
        for name, stages in every
        for each in stages
        for reason in each.reasons
    ]


def _time(seconds: float | None) -> str:
    return MISSING if seconds is None else duration(seconds)


def _gpu_hours(stages: Sequence[StageCost]) -> str:
    known = [each.gpu_hours for each in stages if each.gpu_hours is not None]
    return decimal(sum(known), 2) if known else MISSING
