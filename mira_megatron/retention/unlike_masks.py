"""Sources of one group that compete under different reliability masks.

A trimmed mean over other anchors is on another scale: of two sources that are ranked together, the
one whose stricter anchors are masked is kept, whatever its records are worth. docs/ground_truth.md
has a case.
"""

from __future__ import annotations

from collections.abc import Mapping

from mira_megatron import layout
from mira_megatron.reliability.mask import read_mask
from mira_megatron.retention.documents import scope_name
from mira_megatron.retention.select_settings import SelectSettings
from mira_megatron.stage import Workspace

Unlike = Mapping[str, Mapping[str, list[str]]]  # group -> source -> ids of its masked anchors


def unlike_masks(
    workspace: Workspace, settings: SelectSettings
) -> dict[str, dict[str, list[str]]] | None:
    """Returns the groups of which an arm ranks sources together whose masks are not the same.

    By group and source the ids of the anchors that are masked, in slot order. The masks are those
    that the score table was made with, and so no inputs of their own: which table the recipe masks
    now is nothing to an arm that ranks by an earlier one. None where no mask decided of the scores.
    """
    members: dict[tuple[str, str], dict[str, list[str]]] = {}
    for source, group in settings.groups.items():
        scores = workspace.upstream_manifest(layout.record_scores(settings.config.score, source))
        if layout.reliability_mask(settings.config.score, source) not in scores.inputs:
            continue
        scope = scope_name(settings.config.scope, source=source, source_group=group)
        members.setdefault((scope, group), {})[source] = _masked(workspace, settings, source)
    if not members:
        return None
    return {
        group: of_group
        for (_, group), of_group in members.items()
        if any(masked != next(iter(of_group.values())) for masked in of_group.values())
    }


def _masked(workspace: Workspace, settings: SelectSettings, source: str) -> list[str]:
    folder = layout.reliability_mask(settings.config.score, source)
    return [each.cell.anchor_id for each in read_mask(workspace, folder) if each.decision.is_masked]


def in_words(of_group: Mapping[str, list[str]]) -> str:
    """Returns which anchors are masked of each source of a group."""
    return "; ".join(f"{source} {', '.join(ids) or 'none'}" for source, ids in of_group.items())
