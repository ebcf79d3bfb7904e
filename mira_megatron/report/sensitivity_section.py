"""What undecided reliability cells would change in an arm, read from sensitivity/."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mira_megatron import layout
from mira_megatron.manifest import read_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmSensitivity:
    """The flips of one arm, as flips.parquet has them."""

    arm: str
    cells: tuple[Mapping[str, Any], ...]  # what changes most first
    joint: Mapping[str, Any] | None  # all at once; None where no cell is undecided


def masked_arms(score_tables: Mapping[str, str], masking: str | None) -> tuple[str, ...]:
    """Returns the arms that rank by the score table whose anchors are masked."""
    return tuple(arm for arm, table in score_tables.items() if masking and table == masking)


def read_sensitivities(run_folder: Path, arms: Iterable[str]) -> tuple[ArmSensitivity, ...]:
    """Returns what each arm's undecided cells would change, in the order of the arms."""
    return tuple(_read_arm(run_folder, arm) for arm in arms)


def _read_arm(run_folder: Path, arm: str) -> ArmSensitivity:
    rows = pq.read_table(run_folder / layout.sensitivity(arm) / layout.FLIPS).to_pylist()
    cells = [row for row in rows if not row["is_joint"]]
    joint = [row for row in rows if row["is_joint"]]
    return ArmSensitivity(
        arm=arm,
        cells=tuple(sorted(cells, key=lambda row: -(row["changed_fraction"] or 0.0))),
        joint=joint[0] if joint else None,
    )


def sensitivity_line(run_folder: Path, arm: str) -> str:
    """Returns one line for the terminal about an arm's undecided cells."""
    manifest = read_manifest(run_folder / layout.sensitivity(arm))
    if manifest is None:
        return "Undecided anchors: not flipped yet"
    num, totals = manifest.counts.num_out, manifest.counts.totals
    if not num:
        return "Undecided anchors: none"
    most, joint = totals.get("max_changed_fraction"), totals.get("joint_changed_fraction")
    return (
        f"Undecided anchors: {num:,}; the other way round one changes at most {_share(most)} of "
        f"the kept tokens, all at once {_share(joint)}"
    )


def _share(fraction: float | None) -> str:
    return "n/a" if fraction is None else f"{fraction:.1%}"
