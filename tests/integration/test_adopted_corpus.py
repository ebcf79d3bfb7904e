"""From another team's `.bin/.idx` and a parquet of scores to a verified view and a training run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from adopted_datasets import (
    random_documents,
    write_adopting_recipe,
    write_pair,
    write_table,
    write_tokenizer,
)
from megatron.core.datasets.indexed_dataset import IndexedDataset
from smoke_runs import (
    SMOKE,
    Ended,
    assert_done,
    assert_refused,
    differences,
    killed_at,
    mira,
    mira_tokens,
)

from mira_megatron.config import load_yaml

ADOPTED = {
    "wiki": {
        "prefixes": ["data/wiki_*"],
        "scores": {"team": {"paths": "data/wiki.parquet", "document": "doc", "column": "quality"}},
    },
    "code": {"prefixes": ["data/code"], "scores": {"team": "data/code.parquet"}},
    "notes": {"prefixes": ["data/notes"], "unscored": "pin"},
    "old": {"prefixes": ["data/old"]},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sources as Megatron's builder writes them; five pairs, two tables of scores."""
    folder = tmp_path_factory.mktemp("adopted")
    data = folder / "data"
    data.mkdir()
    eod_id = write_tokenizer(folder / "tokenizer.json")
    sizes = {"wiki_2": 120, "wiki_10": 80, "code": 90, "notes": 30, "old": 30}
    for seed, (name, count) in enumerate(sizes.items()):
        write_pair(data / name, random_documents(seed, count, eod_id))
    draw = np.random.default_rng(0)
    write_table(data / "wiki.parquet", {"doc": np.arange(200), "quality": draw.random(200)})
    write_table(data / "code.parquet", {"score": draw.random(90)})
    return folder


def recipe(corpus: Path, folder: Path) -> Path:
    """Writes a recipe beside a copy of the corpus; it trains as recipes/smoke.yaml does."""
    shutil.copytree(corpus, folder, dirs_exist_ok=True)
    midtrain = load_yaml(SMOKE)["midtrain"]
    midtrain["training"] |= {"train_iters": None, "log_interval": 1}
    return write_adopting_recipe(folder, ADOPTED, midtrain=midtrain)


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A finished run over the adopted corpus, and what was said."""
    folder = tmp_path_factory.mktemp("finished")
    said = mira("run", recipe(corpus, folder))
    assert_done(said)
    return folder, said


def test_adopted_corpus_is_trained_on_without_ingest(finished: tuple[Path, Ended]) -> None:
    folder, said = finished
    assert not (folder / "run/records").exists()
    state = json.loads((folder / "run/checkpoints/half/trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert losses[-1] < losses[0]
    assert "old has no scores and is left out" in said.output
    assert "pinned" in said.output


def test_views_of_adopted_pairs_show_the_best_scored_documents(
    finished: tuple[Path, Ended],
) -> None:
    folder, _ = finished
    blend = json.loads((folder / "run/blends/half/blend.json").read_text())
    assert {entry["name"] for entry in blend["entries"]} >= {"wiki.0", "wiki.1", "code", "notes"}
    (entry,) = [e for e in blend["entries"] if (e["name"], e["split"]) == ("wiki.1", "train")]
    view = IndexedDataset(str(folder / "run/blends/half" / entry["prefix"]))
    original = IndexedDataset(str(folder / "data/wiki_10"))
    kept = np.flatnonzero(np.load(folder / "run/keep/half/wiki.1.keep.npy"))
    assert [view[n].tolist() for n in range(len(view))] == [original[n].tolist() for n in kept]


def test_adopted_corpus_is_verified(finished: tuple[Path, Ended]) -> None:
    folder, _ = finished
    said = mira_tokens("verify", folder / "recipe.yaml")
    assert_done(said)
    assert "verified" in said.output


def test_adopted_pair_that_is_gone_is_named(corpus: Path, tmp_path: Path) -> None:
    path = recipe(corpus, tmp_path)
    assert_done(mira("tokenize", path))
    assert_done(mira("adopt", path))
    (tmp_path / "data/code.idx").unlink()
    said = mira("run", path)
    assert_refused(said, "data/code.idx: no such index")


@pytest.mark.parametrize(("moment", "call"), [("before", 2), ("after", 4), ("before", 8)])
def test_adopting_killed_and_run_again_ends_with_the_same_bytes(
    corpus: Path, tmp_path: Path, moment: str, call: int
) -> None:
    path = recipe(corpus, tmp_path)
    expected = tmp_path / "expected"
    for stage in ("tokenize", "adopt"):
        assert_done(mira(stage, path, f"run_folder={expected}"))
    assert_done(mira("tokenize", path))
    assert killed_at(moment, call, "adopt", path).exit_code == -9
    assert_done(mira("adopt", path))
    assert differences(expected, tmp_path / "run") == []


def test_adopted_data_on_a_read_only_disk_are_left_as_they_are(
    corpus: Path, tmp_path: Path
) -> None:
    path = recipe(corpus, tmp_path)
    data = tmp_path / "data"
    before = {file.name: file.stat().st_mtime_ns for file in data.iterdir()}
    for file in [*data.iterdir(), data]:
        file.chmod(0o555)
    try:
        assert_done(mira("blend", path, "--dry-run"))
        assert_done(mira("run", path))
    finally:
        data.chmod(0o755)
    assert {file.name: file.stat().st_mtime_ns for file in data.iterdir()} == before
