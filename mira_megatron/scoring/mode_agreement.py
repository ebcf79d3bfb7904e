"""How far a cheaper answer mode ranks a group's records as full answers do, before it is used.

Reads   records/<source>/part-*.parquet of the group's sources, its anchors, and its scorer
Writes  mode_agreement/<rubric>/<group>/<mode>/: the files of asked_sample.py for the askings
            `full` and `mode`

A unit within the stage `score`, one per group whose mode is not `full`, where
`score.min_mode_agreement` is set. What it measures stays, whatever is made of it: `check_mode`
compares it with the setting when a source's turn has come. It decides whether a group is scored so,
never what its ratings are, so it is no input of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mira_megatron import layout
from mira_megatron.scoring.asked_sample import (
    SUMMARY,
    SampleSettings,
    compare_askings,
    read_summary,
)
from mira_megatron.scoring.group_scorer import GroupScorer
from mira_megatron.stage import Unit, WorkResult, Workspace
from mira_megatron.written_numbers import decimal

VERSION = 2


def mode_units(scorer: GroupScorer, sources: Sequence[str]) -> list[Unit]:
    """Returns the unit of one group, none where nothing is to be measured."""
    if scorer.mode_agreement is None:
        return []
    full = scorer.answering("full", scorer.judge.seed)
    return [
        Unit(
            stage="score",
            name=f"answer mode of {scorer.group}",
            folder=scorer.mode_agreement,
            version=VERSION,
            config={
                **scorer.fingerprinted,
                "full_prompt_key": full.fingerprinted["prompt_key"],
                "seed": scorer.judge.seed,
            },
            raw_inputs={"mode_agreement_records": str(scorer.judge.config.mode_agreement_records)},
            upstream=(*map(layout.records, sources), *scorer.upstream),
            raw_files=scorer.raw_files,
            work="mira_megatron.scoring.mode_agreement:measure",
            settings=SampleSettings(sources=tuple(sources), scorer=scorer),
        )
    ]


def measure(workspace: Workspace, settings: SampleSettings) -> WorkResult:
    """Writes the sample's ratings in both modes, and how they agree."""
    scorer = settings.scorer
    askings = {"full": scorer.answering("full", scorer.judge.seed), "mode": scorer}
    num_records = scorer.judge.config.mode_agreement_records
    return compare_askings(workspace, settings, num_records, askings)


def check_mode(run_folder: Path, scorer: GroupScorer) -> None:
    """Raises ValueError where a group's answer mode agrees too little with full answers."""
    least = scorer.judge.config.min_mode_agreement
    if scorer.mode_agreement is None or least is None:
        return
    folder = run_folder / scorer.mode_agreement
    measured = read_summary(folder)
    if measured is None:
        raise ValueError(
            f"{folder / SUMMARY}: not measured yet. Run `mira score`, which measures it first."
        )
    if not is_accepted(measured.agreement, least):
        mode, group = measured.answer_mode, scorer.group
        raise ValueError(
            f"{folder / SUMMARY}: in group {group}, answer_mode={mode} agrees with full answers to "
            f"a Spearman of {decimal(measured.agreement)} (median of the anchors, "
            f"{measured.num_records} records), below min_mode_agreement={least}. Score the group "
            f"in full with scorers.{group}.answer_mode=full, or accept less with a lower "
            "score.min_mode_agreement; the file beside it has every anchor"
        )


def is_accepted(agreement: float | None, least: float) -> bool:
    """Returns whether a mode agrees enough; one that could not be compared does not."""
    return agreement is not None and agreement >= least
