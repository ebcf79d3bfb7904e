"""A disk that really fills up in the middle of a stage, and the same command with room again."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from smoke_runs import (
    STAGES,
    Ended,
    assert_done,
    assert_refused,
    at_once,
    before,
    content,
    copy_stages,
    differences,
    ended,
    files,
    leftovers,
    mira,
    smoke_words,
)

ON_SMALL_DISK = Path(__file__).with_name("on_small_disk.py")
# numpy writes an array of several blocks past Python's own files, and fails in its own way.
WRITE_MASK = """
import resource, sys
from pathlib import Path
import numpy as np
from mira_megatron.atomic_files import NO_SPACE
from mira_megatron.retention.keep_masks import write_keep_mask
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
documents = np.ones(1_000_000, dtype=np.int64)
try:
    write_keep_mask(
        Path(sys.argv[1]), documents > 0, documents, idx_fingerprint="", scores_fingerprint=""
    )
except OSError as error:
    assert error.errno in NO_SPACE, repr(error)
    assert sys.argv[1] in str(error), repr(error)
else:
    raise AssertionError("a mask of 1 MB fitted into 64 KiB")
"""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")  # what tmpfs counts in


def stage_bytes(run_folder: Path, stage: str) -> int:
    """Returns the bytes a stage's files take on a tmpfs."""
    units = [
        path.parent
        for path in run_folder.rglob("manifest.json")
        if json.loads(path.read_bytes())["stage"] == stage
    ]
    sizes = [path.lstat().st_size for unit in units for path in unit.rglob("*") if path.is_file()]
    return sum(-(-size // PAGE_BYTES) * PAGE_BYTES for size in sizes)


@pytest.fixture(scope="module")
def filled(
    own_mounts: Sequence[str], finished_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Path]:
    """For every stage the folder in which it was run on a disk with half the room it takes."""
    folders = {stage: tmp_path_factory.mktemp(stage) for stage in STAGES}

    def fill(stage: str) -> None:
        folder = folders[stage]
        copy_stages(finished_run, folder / "run", before(stage))
        words = [*smoke_words(stage, folder / "disk" / "run"), "--workers=1"]
        command = [sys.executable, "-m", "mira_megatron.cli", *words]
        room_bytes = stage_bytes(finished_run, stage) // 2
        done = ended([*own_mounts, sys.executable, ON_SMALL_DISK, folder, room_bytes, *command])
        assert_done(done)

    at_once(fill, STAGES)
    return folders


@pytest.mark.parametrize("stage", STAGES)
def test_stage_on_a_full_disk_says_so_and_ends_well_with_room(
    filled: Mapping[str, Path], finished_run: Path, tmp_path: Path, stage: str
) -> None:
    folder = filled[stage]
    said = Ended(**json.loads((folder / "full.json").read_text()))
    assert_refused(said, "no space left while writing", str(folder / "disk/run/"))
    whole = files(finished_run)
    assert [
        name
        for name, path in files(folder / "full").items()
        if ".scratch" not in path.parts
        and path.name != "intent.json"
        and content(path) != content(whole[name])
    ] == []
    expected = copy_stages(finished_run, tmp_path / "expected", (*before(stage), stage))
    # What was mounted here is gone, and the same words find what the full disk was left with.
    run = shutil.copytree(folder / "full", folder / "disk" / "run", symlinks=True)
    assert_done(mira(*smoke_words(stage, run)))
    assert differences(expected, run) == []
    assert leftovers(run) == []


def test_keep_mask_longer_than_the_room_says_so(tmp_path: Path) -> None:
    assert_done(ended([sys.executable, "-c", WRITE_MASK, tmp_path / "a.keep.npy"]))
    assert list(tmp_path.iterdir()) == []
