"""`mira tokens` on a finished run: what a training saw of it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from megatron.core.datasets.indexed_dataset import IndexedDataset
from smoke_runs import (
    ARM,
    SMALL,
    SMOKE,
    STAGES,
    Ended,
    assert_done,
    assert_refused,
    copy_stages,
    mira_tokens,
)

TRAINED_UNTIL = STAGES[: STAGES.index("midtrain") + 1]


def on_run(word: str, run: Path, *options: object) -> Ended:
    """Runs a word on a small smoke run."""
    return mira_tokens(word, SMOKE, f"run_folder={run}", *SMALL, *options)


def json_lines(said: Ended) -> list[dict[str, Any]]:
    assert_done(said)
    return [json.loads(line) for line in said.output.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_stages(finished_run, tmp_path_factory.mktemp("tokens") / "run", TRAINED_UNTIL)


def prefixes(run: Path, split: str) -> list[Path]:
    folder = run / "blends" / ARM
    blend = json.loads((folder / "blend.json").read_text())
    return [folder / prefix for prefix in blend[split]]


def documents(path_prefix: Path) -> list[Sequence[int]]:
    dataset = IndexedDataset(str(path_prefix))
    return [dataset[number].tolist() for number in range(len(dataset))]


def test_finished_arm_is_verified(run: Path) -> None:
    said = on_run("verify", run)
    assert_done(said)
    assert "verified" in said.output


def test_training_asked_for_more_than_there_is_fails_to_verify(run: Path) -> None:
    said = on_run("verify", run, "--num-samples", 100_000)
    assert_refused(said, "training asks for 100,000 samples")


def test_blend_over_other_tokens_fails_to_verify(finished_run: Path, tmp_path: Path) -> None:
    run = copy_stages(finished_run, tmp_path / "run", TRAINED_UNTIL)
    (view,) = (run / "blends" / ARM).glob("modules-????????.idx")
    content = bytearray(view.read_bytes())
    content[34 + 4 * int.from_bytes(content[18:26], "little")] ^= 4  # a pointer's lowest byte
    view.write_bytes(content)
    assert on_run("verify", run).exit_code == 2


def test_record_that_is_traced_is_found_again_where_it_was(run: Path) -> None:
    traced = json_lines(on_run("trace", run, "--iteration", 2, "--json"))
    span = traced[0]["spans"][0] if "spans" in traced[0] else traced[0]
    uses = json_lines(on_run("trace", run, "--record", span["record_id"], "--json"))
    assert any(use.get("iteration") == 2 for line in uses for use in line.get("uses", [line]))


def test_iteration_after_the_last_is_refused(run: Path) -> None:
    assert_refused(on_run("trace", run, "--iteration", 3), "iteration 3 is after the last, 2")


def test_doctor_finds_nothing_wrong_and_builds_the_caches(run: Path, tmp_path: Path) -> None:
    said = on_run("doctor", run, "--cache", tmp_path / "cache", "--prebuild")
    assert_done(said)
    assert list((tmp_path / "cache").glob("*-document_index.npy"))
    again = on_run("doctor", run, "--cache", tmp_path / "cache", "--prebuild")
    assert "0 files built" in again.output


def test_doctor_ends_with_an_error_for_a_stale_cache(run: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert_done(on_run("doctor", run, "--cache", cache, "--prebuild"))
    path = next(cache.glob("*-GPTDataset-train-document_index.npy"))
    np.save(path, np.load(path) + 10_000)
    assert_refused(on_run("doctor", run, "--cache", cache), "error")


def test_views_merge_into_one_dataset_in_the_order_given(run: Path, tmp_path: Path) -> None:
    views = prefixes(run, "train")[::-1]
    assert_done(mira_tokens("merge", *views, "--output", tmp_path / "merged"))
    expected = [document for view in views for document in documents(view)]
    assert documents(tmp_path / "merged") == expected


def test_view_is_materialised_by_the_name_of_its_idx(run: Path, tmp_path: Path) -> None:
    view = prefixes(run, "train")[0]
    said = mira_tokens("materialise", f"{view}.idx", "--output", tmp_path / "plain")
    assert_done(said)
    assert documents(tmp_path / "plain") == documents(view)
    assert not (tmp_path / "plain.bin").is_symlink()


def test_arguments_for_megatron_lm_are_written(run: Path, tmp_path: Path) -> None:
    said = on_run("arguments", run, "--output", tmp_path)
    assert_done(said)
    written = json.loads((tmp_path / ARM / "data_per_split.json").read_text())
    assert set(written) == {"train", "valid", "test"}
    assert "--per-split-data-args-path" in said.output


def test_any_prefixes_are_replayed_without_a_recipe(run: Path) -> None:
    pair = next((run / "tokens/modules").glob("*.idx"))
    split = ("--sequence-length", 64, "--split", "90,10,0", "--eod-id", 0, "--vocab-size", 512)
    said = mira_tokens("replay", pair, *split)
    assert_done(said)
    assert "valid" in said.output


def test_raw_files_are_written_as_tokens(run: Path, tmp_path: Path) -> None:
    rows = [{"text": f"def f{number}(): pass\n", "name": f"r{number}"} for number in range(40)]
    for half in (0, 1):
        lines = [json.dumps(row) for row in rows[half * 20 : half * 20 + 20]]
        (tmp_path / f"{half}.jsonl").write_text("\n".join(lines))
    words = ("--tokenizer", run / "tokenizer", "--output", tmp_path / "out", "--id-field", "name")
    said = mira_tokens("write", tmp_path / "0.jsonl", tmp_path / "1.jsonl", *words)
    assert_done(said)
    assert len(documents(tmp_path / "out")) == 40
