"""A finished run and another setting: refused by name, or made next to it as a new arm."""

from __future__ import annotations

from pathlib import Path

import pytest
from smoke_runs import (
    ARM,
    OTHER_JUDGE,
    STAGES,
    assert_done,
    assert_refused,
    copy_stages,
    smoke,
    stamps,
)

CHANGES = {
    "ingest": (
        "sources.questions.max_chars=5000",
        "ingest.source.max_chars was 6000 and is 5000",
    ),
    "group": ("group.min_silhouette=0.2", "group.min_silhouette was 0.15 and is 0.2"),
    "discover": (
        "discover.records_per_source=30",
        "discover.records_per_source was 40 and is 30",
    ),
    "anchor": (
        "anchor.num_reference_anchors=10",
        "anchor.num_reference_anchors was 12 and is 10",
    ),
    "label": ("label.records_per_source=20", "label.records_per_source was 40 and is 20"),
    "sft-data": (
        "distill.validation_fraction=0.4",
        "sft-data.validation_fraction was 0.3 and is 0.4",
    ),
    "distill": (
        "distill.training.train_iters=3",
        "distill.training.train_iters was 2 and is 3",
    ),
    "reliability": (
        f"score={OTHER_JUDGE}",
        "reliability.engine was 'rule_judge' and is 'endpoint'",
    ),
    # A whole run stops at `reliability`, which comes first and is asked of the same judge.
    "score": (f"score={OTHER_JUDGE}", ".engine was 'rule_judge' and is 'endpoint'"),
    "aggregate": ("aggregate.min_slots=6", "aggregate.min_slots was 5 and is 6"),
    "tokenize": (
        "tokenize.validation_fraction=0.2",
        "tokenize.validation_fraction was 0.1 and is 0.2",
    ),
    "select": (
        f"arms.{ARM}.budget_fraction=0.25",
        "select.budget_fraction was 0.5 and is 0.25",
    ),
    "blend": ("blend.sequence_length=32", "blend.sequence_length was 64 and is 32"),
    "midtrain": (
        "midtrain.model.hidden_size=32",
        "midtrain.model.hidden_size was 64 and is 32",
    ),
    "instruct-data": (
        "instruct_sft.sequence_length=256",
        "instruct-data.sequence_length was 512 and is 256",
    ),
    "instruct-sft": (
        "instruct_sft.num_epochs=3",
        "instruct-sft.num_epochs was 2 and is 3",
    ),
}


@pytest.mark.parametrize("command", ["its own", "run"])
@pytest.mark.parametrize("stage", list(CHANGES))
def test_setting_changed_after_a_finished_run_is_refused_by_name(
    finished_run: Path, tmp_path: Path, stage: str, command: str
) -> None:
    setting, named = CHANGES[stage]
    run = copy_stages(finished_run, tmp_path / "run", STAGES)
    made = stamps(run)
    assert_refused(smoke(stage if command == "its own" else command, run, setting), named)
    assert stamps(run) == made


def test_earlier_setting_changed_is_refused_by_a_later_stage(
    finished_run: Path, tmp_path: Path
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", STAGES)
    refused = smoke("select", run, "aggregate.trim_fraction=0.2")
    assert_refused(refused, "record_scores/smoke/", "aggregate.trim_fraction was 0.1")


def test_arm_added_to_a_finished_run_leaves_the_old_one_untouched(
    finished_run: Path, tmp_path: Path
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", STAGES)
    made = stamps(run)
    new_arm = "arms.mira_global={score: smoke, scope: global}"
    for stage in ("select", "blend"):
        assert_done(smoke(stage, run, new_arm))
    assert (run / "keep/mira_global/selection.json").is_file()
    assert (run / "blends/mira_global/blend.json").is_file()
    assert made.items() <= stamps(run).items()
