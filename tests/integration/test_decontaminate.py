"""`mira decontaminate` on a smoke run: its mask composes in `select`, and a kill costs no part."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from smoke_runs import ARM, assert_done, killed_at, mira, smoke_words

from mira_megatron.config import load_recipe
from mira_megatron.pipeline import run_stages
from mira_megatron.stage import Resources

pytestmark = pytest.mark.integration

STAGES = ("ingest", "group", "discover", "anchor", "label", "reliability", "score", "aggregate")
SUITE = """
name: leaked
sampling: {greedy: {}}
benchmarks:
  mbpp: {kind: mbpp, category: c, file: tasks.jsonl, protocol: p, sampling: greedy}
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its first arm, and a benchmark two of whose tasks lie in its best module."""
    folder = tmp_path_factory.mktemp("decontaminated") / "run"
    _, path, *settings = smoke_words("select", folder)
    run_stages(load_recipe(Path(path), settings), [*STAGES, "tokenize", "select"], Resources())
    best = kept_texts(folder, ARM)[0]
    lines = best.splitlines()
    halves = ("\n".join(lines[: len(lines) // 2]), "\n".join(lines[len(lines) // 2 :]))
    tasks = [
        {"task_id": f"Mbpp/{number}", "prompt": "Say why.", "canonical_solution": half}
        for number, half in enumerate(halves)
    ]
    (folder.parent / "suite.yaml").write_text(SUITE)
    (folder.parent / "tasks.jsonl").write_text("".join(f"{json.dumps(task)}\n" for task in tasks))
    return folder


def documents(folder: Path, source: str = "modules") -> list[dict[str, Any]]:
    """The documents of a source's tokens, in order, with their texts."""
    parts = sorted((folder / "records" / source).glob("part-*.parquet"))
    texts = {
        row["record_id"]: row["text"]
        for part in parts
        for row in pq.read_table(part, columns=["record_id", "text"]).to_pylist()
    }
    (path,) = (folder / "tokens" / source).glob("*.records.parquet")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return [{**row, "text": texts[row["record_id"]]} for row in rows]


def kept(folder: Path, arm: str) -> dict[str, bool]:
    mask = np.load(folder / "keep" / arm / "modules.keep.npy")
    ids = [document["record_id"] for document in documents(folder)]
    return dict(zip(ids, mask.tolist(), strict=True))


def kept_texts(folder: Path, arm: str) -> list[str]:
    is_kept = kept(folder, arm)
    return [each["text"] for each in documents(folder) if is_kept[each["record_id"]]]


def words(folder: Path, output: Path, *more: str) -> list[str]:
    of_suite = [f"--suite={folder.parent / 'suite.yaml'}", f"--data-folder={folder.parent}"]
    return [*smoke_words("decontaminate", folder), *of_suite, f"--output={output}", *more]


def test_select_leaves_out_what_the_mask_drops(run_folder: Path) -> None:
    output = run_folder.parent / "found"
    assert_done(mira(*words(run_folder, output)))
    dropped = {row["record_id"] for row in pq.read_table(output / "keep.parquet").to_pylist()}
    assert dropped
    before = kept(run_folder, ARM)
    assert any(before[record_id] for record_id in dropped)
    mask = f"{{path: {output / 'keep.parquet'}, unlisted: keep}}"
    arm = f"arms.clean={{score: smoke, scope: group, with_masks: {{decontamination: {mask}}}}}"
    assert_done(mira(*smoke_words("select", run_folder, arm)))
    after = kept(run_folder, "clean")
    assert not any(after[record_id] for record_id in dropped)
    assert any(after.values())
    certificate = json.loads((run_folder / "keep/clean/selection.json").read_text())
    denied = certificate["sources"]["modules"]["denied"]["decontamination"]
    assert denied["num_documents"] == len(dropped & set(before))


def test_killed_scan_goes_on_and_ends_with_the_same_bytes(run_folder: Path) -> None:
    whole, torn = run_folder.parent / "whole", run_folder.parent / "torn"
    done = killed_at("never", 0, *words(run_folder, whole))
    assert_done(done)
    num_calls = int(done.output.split()[-1])
    for call in (2, num_calls // 2, num_calls - 1):
        for moment in ("before", "after"):
            ended = killed_at(moment, call, *words(run_folder, torn))
            assert ended.exit_code in (-signal.SIGKILL, 0)
    assert_done(mira(*words(run_folder, torn)))
    summary = json.loads((torn / "summary.json").read_text())
    assert summary["num_parts_kept"] > 0
    for name in ("items.jsonl", "hits.parquet", "keep.parquet"):
        assert (torn / name).read_bytes() == (whole / name).read_bytes()
