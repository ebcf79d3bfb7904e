"""`mira doctor`: says what would waste GPU hours, before they are spent.

Without a recipe it looks at what is installed; with one, a run folder, a group and a base model, at
everything that the group's training would read. Nothing is written, and Megatron is not imported.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mira_megatron.doctor.checks import check_facts
from mira_megatron.doctor.config_facts import recipe_facts, with_versions
from mira_megatron.doctor.environment import (
    check_disk,
    check_transformers,
    environment_findings,
    gpus,
    installed_versions,
)
from mira_megatron.doctor.file_facts import with_base, with_data
from mira_megatron.doctor.finding import ERROR, INFO, UNKNOWN, WARNING, Finding
from mira_megatron.training.bridge_group import GroupFolders
from mira_megatron.training.bridge_layouts import find_recipe

_STYLES = {ERROR: "bold red", WARNING: "yellow", UNKNOWN: "cyan", INFO: "dim"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """A group's training on a cluster, as recipes/scorer_sft.py is told it."""

    recipe: str
    folders: GroupFolders
    base_folder: Path


def run(console: Console, training: Training | None) -> int:
    """Prints what was found; returns 0, or 2 where something has to be mended first.

    Raises ValueError for an unknown recipe, FileNotFoundError for a base model that is not there.
    """
    versions = installed_versions()
    findings = [*environment_findings(versions, gpus()), *check_transformers(versions)]
    if training is not None:
        findings += _training_findings(training, versions)
    print_findings(console, findings)
    return 2 if any(finding.level == ERROR for finding in findings) else 0


def _training_findings(training: Training, versions: dict[str, str | None]) -> list[Finding]:
    facts = recipe_facts(training.recipe, str(training.base_folder))
    facts = with_versions(facts, versions)
    facts = with_base(facts, training.base_folder)
    facts = with_data(facts, training.folders)
    model, _ = find_recipe(training.recipe)
    free_bytes = shutil.disk_usage(_existing(training.folders.run_folder)).free
    disk = check_disk(training.folders.run_folder, free_bytes, model, num_kept=2)
    return [*check_facts(facts), *disk]


def _existing(folder: Path) -> Path:
    """Returns the folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def print_findings(console: Console, findings: list[Finding]) -> None:
    """Prints one line per finding."""
    table = Table(box=None, pad_edge=False)
    for title in ("", "where", "what", "way out"):
        table.add_column(title, overflow="fold")  # a path that is cut off names nothing
    for finding in findings:
        # Paths and settings may hold brackets, which rich would take for markup.
        cells = [Text(finding.where), Text(finding.what), Text(finding.way_out)]
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), *cells)
    console.print(table)
