"""A proof looks at the cache that a trainer would read, whoever's it is, and leaves it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arm_folders import documents_of, write_run

from mira_megatron.provenance.prebuild import megatron_lm_identity, prebuild
from mira_megatron.provenance.replay import blend_request
from mira_megatron.provenance.verify import verify
from mira_megatron.provenance.verify_foreign import verify_foreign
from mira_megatron.provenance.verify_report import VerifyReport
from mira_megatron.tokenization.index_file import idx_path
from mira_megatron.tokenization.megatron_datasets import read_blend

pytestmark = pytest.mark.megatron

LEFT = documents_of([5, 0, 9, 3, 12, 1, 7, 0, 6, 4, 11, 8], dropped=[2, 3], held_out=[4, 10])
RIGHT = documents_of([9, 9, 9, 9, 4, 4], dropped=[0], held_out=[1, 2])


def whats(report: VerifyReport) -> str:
    return "\n".join(each.what for each in report.problems)


def cached(folder: Path, **options: Any) -> Path:
    """Returns the cache of a training on a run made anew."""
    write_run(folder, {"left": [LEFT], "right": [RIGHT]})
    blend = read_blend(folder / "blends/half")
    prebuild(blend_request(blend, seed=3), folder / "cache", **options)
    return folder / "cache"


def notes_of_caches(report: VerifyReport) -> list[str]:
    return [note for note in report.notes if "training's own key" in note]


def test_verify_takes_the_cache_of_the_training_and_finds_it_stale(tmp_path: Path) -> None:
    cache = cached(tmp_path)
    report = verify(tmp_path, ["half"], seed=3, cache_folder=cache)
    assert report.ok
    assert notes_of_caches(report) == []
    other = replace(LEFT, lengths=[5, 0, 9, 3, 12, 1, 6, 0, 7, 4, 11, 8])
    write_run(tmp_path / "other", {"left": [other]})
    (path,) = (tmp_path / "other/blends/half").glob("left-train-*.idx")
    (own,) = (tmp_path / "blends/half").glob("left-train-*.idx")
    idx_path(own.with_suffix("")).write_bytes(path.read_bytes())
    found = whats(verify(tmp_path, ["half"], seed=3, cache_folder=cache))
    assert "was not made of this .idx" in found
    assert "begins elsewhere than in the .idx" in found


def _swap_documents(cache: Path) -> None:
    path = max(cache.glob("*-train-document_index.npy"), key=lambda path: path.stat().st_size)
    np.save(path, np.load(path)[::-1].copy())


def _draw_twice(cache: Path) -> None:
    path = max(cache.glob("*-train-shuffle_index.npy"), key=lambda path: path.stat().st_size)
    shuffle = np.load(path)
    shuffle[1] = shuffle[0]
    np.save(path, shuffle)


def _forget_places(cache: Path) -> None:
    (path,) = cache.glob("*-train-dataset_sample_index.npy")
    np.save(path, np.zeros_like(np.load(path)))


@pytest.mark.parametrize("identity", [None, megatron_lm_identity("/models/base")])
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_swap_documents, "begins elsewhere"),
        (_draw_twice, "does not draw each of its 3 samples once"),
        (_forget_places, "of prefix"),
    ],
)
def test_verify_finds_a_damaged_cache_of_any_trainer(
    tmp_path: Path, identity: Any, damage: Callable[[Path], None], found: str
) -> None:
    cache = cached(tmp_path, identity=identity)
    damage(cache)
    assert found in whats(verify(tmp_path, ["half"], seed=3, cache_folder=cache))


def test_verify_of_another_trainers_cache_says_so_and_writes_nothing(tmp_path: Path) -> None:
    cache = cached(tmp_path, identity=megatron_lm_identity("/models/base"))
    before = sorted(cache.iterdir())
    report = verify(tmp_path, ["half"], seed=3, cache_folder=cache)
    assert report.ok
    train, valid = notes_of_caches(report)
    assert train == (
        f"half train: no cache of this training's own key in {cache}: 3 indices were rebuilt"
    )
    assert valid.startswith("half valid: no cache")
    assert sorted(cache.iterdir()) == before
    request = blend_request(read_blend(tmp_path / "blends/half"), seed=3)
    assert len(notes_of_caches(verify_foreign(request, cache_folder=cache))) == 2
    _draw_twice(cache)
    assert "once" in whats(verify_foreign(request, cache_folder=cache))
    assert sorted(cache.iterdir()) == before
