"""kill -9 in the middle of a stage: the same bytes afterwards, or a refusal, never a mixture."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from jsonl_corpora import text_source, write_jsonl, write_recipe
from smoke_runs import (
    ARM,
    OTHER_JUDGE,
    STAGES,
    Undisturbed,
    assert_done,
    assert_refused,
    at_once,
    before,
    copy_stages,
    differences,
    killed_at,
    leftovers,
    mira,
    smoke,
    smoke_words,
    stamps,
)

MOMENTS = ("before", "after")
MIDDLE_WAY = {  # a call in the middle of a unit, another setting, and how the refusal names it
    "ingest": (6, "ingest.records_per_part=12", "ingest.records_per_part was 10 and is 12"),
    "group": (3, "group.min_silhouette=0.2", "group.min_silhouette was 0.15 and is 0.2"),
    "discover": (
        3,
        "discover.records_per_source=30",
        "discover.records_per_source was 40 and is 30",
    ),
    "anchor": (3, "anchor.num_starts=4", "anchor.num_starts was 3 and is 4"),
    "label": (
        2,
        "label.reliability_fraction=0.5",
        "label.reliability_fraction was 0.25 and is 0.5",
    ),
    "sft-data": (
        3,
        "distill.max_record_tokens=96",
        "sft-data.max_record_tokens was 64 and is 96",
    ),
    "distill": (
        8,
        "distill.training.learning_rate=0.01",
        "distill.training.learning_rate was 0.001 and is 0.01",
    ),
    "reliability": (
        2,
        f"score={OTHER_JUDGE}",
        "reliability.engine was 'rule_judge' and is 'endpoint'",
    ),
    "score": (2, f"score={OTHER_JUDGE}", "score.engine was 'rule_judge' and is 'endpoint'"),
    # After three masks of three calls each.
    "aggregate": (11, "aggregate.trim_fraction=0.2", "aggregate.trim_fraction was 0.1 and is 0.2"),
    "tokenize": (8, "tokenize.eod_token=<|im_end|>", "tokenize.eod_token was '<|endoftext|>'"),
    "select": (3, f"arms.{ARM}.scope=global", "select.scope was 'group' and is 'global'"),
    "blend": (4, "blend.handover=physical_copy", "blend.handover was 'index_view'"),
    "midtrain": (
        2,
        "midtrain.training.learning_rate=0.01",
        "midtrain.training.learning_rate was 0.003 and is 0.01",
    ),
    "instruct-data": (
        2,
        "instruct_sft.num_records=30",
        "instruct-data.num_records was 60 and is 30",
    ),
    "instruct-sft": (
        3,
        "instruct_sft.training.learning_rate=0.01",
        "instruct-sft.training.learning_rate was 0.001 and is 0.01",
    ),
}


def wrong_after_kill(
    expected: Path, run: Path, words: Sequence[str], moment: str, call: int
) -> list[str]:
    """Returns what is not as expected in a run that was killed and then run again."""
    assert killed_at(moment, call, *words).exit_code == -signal.SIGKILL
    again = mira(*words)
    wrong = leftovers(run) + differences(expected, run)
    if again.exit_code:
        wrong = [again.output]
    return [f"killed {moment} call {call}: {what}" for what in wrong]


def wrong_after_kills(
    expected: Path,
    prepare: Callable[[Path], Path],
    words: Callable[[Path], Sequence[str]],
    points: Sequence[tuple[str, int]],
) -> str:
    """Returns what is wrong after a kill at each of these points, each on a run of its own."""

    def wrong(point: tuple[str, int]) -> list[str]:
        moment, call = point
        run = prepare(expected.with_name(f"{moment}-{call}"))
        return wrong_after_kill(expected, run, words(run), moment, call)

    return "\n".join(what for found in at_once(wrong, points) for what in found)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_killed_and_run_again_equals_the_undisturbed_run(
    undisturbed: Undisturbed, tmp_path: Path, stage: str
) -> None:
    last = undisturbed.num_calls[stage]
    points = [(moment, call) for call in (1, (last + 1) // 2, last) for moment in MOMENTS]
    if stage == "tokenize":  # ten, wherever they fall
        calls = random.Random(0).sample(range(1, last + 1), 5)
        points = [(moment, call) for call in calls for moment in MOMENTS]
    if stage in (
        "distill",
        "midtrain",
        "instruct-sft",
    ):  # takes seconds each time, so without those that tell little more
        points = [("before", 1), ("after", (last + 1) // 2), ("before", last), ("after", last)]
    wrong = wrong_after_kills(
        copy_stages(undisturbed.folder, tmp_path / "expected", (*before(stage), stage)),
        lambda folder: copy_stages(undisturbed.folder, folder, before(stage)),
        lambda run: smoke_words(stage, run),
        points,
    )
    assert not wrong, wrong


def test_stage_killed_while_it_reuses_another_run_ends_with_the_same_bytes(
    finished_run: Path, tmp_path: Path
) -> None:
    # Two calls: one names the folder that was linked, one the manifest.
    wrong = wrong_after_kills(
        copy_stages(finished_run, tmp_path / "expected", (*before("select"), "select")),
        lambda folder: copy_stages(finished_run, folder, before("select")),
        lambda run: smoke_words("select", run, f"reuse=[{finished_run}]"),
        [(moment, call) for call in (1, 2) for moment in MOMENTS],
    )
    assert not wrong, wrong


def test_stage_killed_while_it_sets_an_older_result_aside_ends_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    raw = tmp_path / "notes.jsonl"
    recipe = write_recipe(tmp_path / "recipe.yaml", {"notes": text_source(raw)}, ["notes"])

    def words(run: Path) -> list[str]:
        return ["ingest", str(recipe), f"run_folder={run}"]

    def older(folder: Path) -> Path:
        return copy_stages(tmp_path / "older", folder, ["ingest"])

    write_jsonl(raw, [{"text": f"Line {number}"} for number in range(20)])
    assert_done(mira(*words(tmp_path / "older")))
    write_jsonl(raw, [{"text": f"Other line {number}"} for number in range(30)])
    expected = older(tmp_path / "expected")
    assert_done(mira(*words(expected)))
    # The first calls: raw digests, the older result's new name, the intent.
    points = [(moment, call) for call in (2, 3) for moment in MOMENTS]
    wrong = wrong_after_kills(expected, older, words, points)
    assert not wrong, wrong


def group_members(group: int) -> list[int]:
    """Returns the processes of a process group, the dead that nobody waited for left out."""
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which is in brackets: state, parent, group.
            state, _, of_group, *_ = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of_group) == group and state != "Z":
            members.append(int(path.parent.name))
    return members


def test_run_killed_with_workers_leaves_none_behind(tmp_path: Path) -> None:
    # A worker that lives on would write into the folder that the next run resumes.
    words = smoke_words("ingest", tmp_path / "run")
    command = [sys.executable, "-m", "mira_megatron.cli", *words, "--workers=2"]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while len(group_members(run.pid)) < 4 and run.poll() is None:
            time.sleep(0.01)
        run.kill()
        assert run.wait() == -signal.SIGKILL, "the run ended before it had workers"
        deadline = time.monotonic() + 10
        while group_members(run.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert group_members(run.pid) == []
    finally:
        if group_members(run.pid):
            os.killpg(run.pid, signal.SIGKILL)


@pytest.mark.parametrize("stage", list(MIDDLE_WAY))
def test_stage_killed_and_run_again_with_another_setting_is_refused(
    finished_run: Path, tmp_path: Path, stage: str
) -> None:
    call, setting, named = MIDDLE_WAY[stage]
    run = copy_stages(finished_run, tmp_path / "run", before(stage))
    assert killed_at("after", call, *smoke_words(stage, run)).exit_code == -signal.SIGKILL
    (intent,) = run.rglob("intent.json")
    assert not intent.with_name("manifest.json").exists()
    parts = stamps(run)
    assert_refused(smoke(stage, run, setting), str(intent.parent), named)
    assert stamps(run) == parts
