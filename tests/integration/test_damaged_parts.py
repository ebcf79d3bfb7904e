"""A part that is gone or altered stops the run by name; it never makes the result smaller."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from smoke_runs import (
    ARM,
    OWN_SCORERS,
    STAGES,
    assert_refused,
    at_once,
    before,
    copy_stages,
    smoke,
    stamps,
)

PARTS = {  # a file of every kind, and who must miss it: its own stage and a reader
    "records/modules/part-00001.parquet": ("ingest", "score"),
    "records/modules/dropped.jsonl": ("ingest", "tokenize"),
    "groups/smoke/text/source_groups.json": ("group", "discover"),
    "groups/smoke/text/sample.parquet": ("group", "discover"),
    "judgments/smoke/modules/part-00001.parquet": ("discover", "anchor"),
    "judgments/smoke/modules/answers-00001.parquet": ("discover", "anchor"),
    "anchors/smoke/text-modules/anchors.jsonl": ("anchor", "label", "score"),
    "teacher_ratings/smoke/modules/part-00000.parquet": ("label", "sft-data", "reliability"),
    "sft/smoke/text-modules/training.jsonl": ("sft-data", "distill"),
    "sft/smoke/text-modules/tokenizer.json": ("sft-data", "distill"),
    "scorers/smoke/text-modules/scorer.json": ("distill", "report"),
    "scorers/smoke/text-modules/hf/model.safetensors": ("distill", "report"),
    "scorers/smoke/text-modules/weights/.metadata": ("distill", "report"),
    "reliability/smoke/modules/cells.parquet": ("reliability", "aggregate", "report"),
    "ratings/smoke/traces/part-00000.parquet": ("score", "aggregate", "sensitivity"),
    "reliability_masks/smoke/modules/cells.parquet": ("aggregate", "select"),
    "record_scores/smoke/questions/part-00002.parquet": ("aggregate", "select"),
    "tokenizer/tokenizer.json": ("tokenize", "blend"),
    "tokens/modules/modules-*.bin": ("tokenize", "midtrain"),
    "tokens/modules/modules-*.idx": ("tokenize", "blend"),
    "tokens/modules/modules-*.records.parquet": ("tokenize", "select"),
    "tokens/modules/dataset.json": ("tokenize", "select"),
    f"keep/{ARM}/modules.keep.npy": ("select", "blend"),
    f"keep/{ARM}/modules.keep.json": ("select", "blend"),
    f"keep/{ARM}/selection.json": ("select", "report"),
    f"sensitivity/{ARM}/flips.parquet": ("sensitivity", "report"),
    f"blends/{ARM}/blend.json": ("blend", "midtrain"),
    f"blends/{ARM}/modules-????????.idx": ("blend", "midtrain"),
    f"blends/{ARM}/modules-????????.bin": ("blend", "midtrain"),
    f"blends/{ARM}/modules-valid-*.idx": ("blend", "midtrain"),
    f"checkpoints/{ARM}/weights/.metadata": ("midtrain", "instruct-sft", "report"),
    f"checkpoints/{ARM}/trainer_state.json": ("midtrain", "report"),
    f"checkpoints/{ARM}/hf/model.safetensors": ("midtrain", "instruct-sft"),
    "instruct_data/every_arm/training.parquet": ("instruct-data", "instruct-sft"),
    "instruct_data/every_arm/instruct_data.json": ("instruct-data", "instruct-sft"),
    f"instruct/{ARM}/hf/model.safetensors": ("instruct-sft", "report"),
    f"instruct/{ARM}/trainer_state.json": ("instruct-sft", "report"),
    "report/index.html": ("report",),
}


def flip_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def flip_middle_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def swap_two_decisions(content: bytes) -> bytes:
    """Keeps another document instead of the first one kept: the counts stay the same."""
    *_, end_of_header = (at for at, byte in enumerate(content) if byte == ord("\n"))
    mask = np.frombuffer(content, dtype=bool, offset=end_of_header + 1).copy()
    kept, dropped = np.flatnonzero(mask)[0], np.flatnonzero(~mask)[0]
    mask[[kept, dropped]] = mask[[dropped, kept]]
    return content[: end_of_header + 1] + mask.tobytes()


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def replace(content: bytes) -> bytes:
        assert content.count(old) >= 1
        assert len(old) == len(new)
        return content.replace(old, new, 1)

    return replace


ALTERATIONS = [
    ("records/modules/part-00000.parquet", "score", flip_middle_byte),
    ("records/modules/part-00000.parquet", "tokenize", flip_middle_byte),
    ("groups/smoke/text/source_groups.json", "discover", replaced(b"text-mod", b"text-mad")),
    ("judgments/smoke/modules/part-00001.parquet", "anchor", flip_middle_byte),
    ("anchors/smoke/text-modules/anchors.jsonl", "label", replaced(b'"score":0.0', b'"score":9.0')),
    ("anchors/smoke/text-modules/anchors.jsonl", "score", flip_last_byte),
    ("teacher_ratings/smoke/modules/part-00000.parquet", "sft-data", flip_middle_byte),
    ("teacher_ratings/smoke/modules/part-00000.parquet", "reliability", flip_middle_byte),
    ("sft/smoke/text-modules/training.jsonl", "distill", replaced(b"/10", b"/20")),
    ("sft/smoke/text-modules/validation.jsonl", "distill", replaced(b"/10", b"/20")),
    ("sft/smoke/text-modules/tokenizer.json", "distill", flip_middle_byte),
    ("ratings/smoke/traces/part-00000.parquet", "aggregate", flip_middle_byte),
    ("record_scores/smoke/questions/part-00002.parquet", "select", flip_middle_byte),
    ("tokens/modules/modules-*.records.parquet", "select", flip_middle_byte),
    ("tokens/modules/dataset.json", "blend", replaced(b'"eod_id": 0', b'"eod_id": 1')),
    ("tokens/modules/modules-*.idx", "blend", flip_middle_byte),
    ("tokens/modules/modules-*.bin", "midtrain", flip_middle_byte),
    (f"keep/{ARM}/modules.keep.npy", "blend", flip_last_byte),
    (f"keep/{ARM}/modules.keep.npy", "blend", swap_two_decisions),
    (f"blends/{ARM}/blend.json", "midtrain", replaced(b'"eod_id": 0', b'"eod_id": 1')),
    (f"blends/{ARM}/modules-????????.idx", "midtrain", flip_middle_byte),
    (f"checkpoints/{ARM}/weights/__0_0.distcp", "instruct-sft", flip_middle_byte),
    ("instruct_data/every_arm/training.parquet", "instruct-sft", flip_middle_byte),
    ("tokens/modules/modules-*.records.parquet", "instruct-data", flip_middle_byte),
    (f"keep/{ARM}/selection.json", "report", replaced(b'"seed": 7', b'"seed": 8')),
]


@pytest.mark.parametrize("pattern", list(PARTS))
def test_part_deleted_is_named_by_its_own_and_the_next_stage(
    finished_run: Path, tmp_path: Path, pattern: str
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", STAGES)
    (part,) = run.glob(pattern)
    part.unlink()
    left = stamps(run)
    for refused in at_once(lambda stage: smoke(stage, run), PARTS[pattern]):
        assert_refused(refused, f"{part}: this part is missing")
    assert stamps(run) == left


@pytest.mark.parametrize(("pattern", "reader", "alter"), ALTERATIONS)
def test_part_altered_at_the_same_size_is_refused_by_its_reader(
    finished_run: Path,
    tmp_path: Path,
    pattern: str,
    reader: str,
    alter: Callable[[bytes], bytes],
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", before(reader))
    (part,) = run.glob(pattern)
    original = part.read_bytes()
    part.write_bytes(alter(original))
    assert part.stat().st_size == len(original)
    assert part.read_bytes() != original
    assert_refused(smoke(reader, run), str(part))
    unit = part.parent.relative_to(run).as_posix()
    manifests = [json.loads(path.read_bytes()) for path in run.rglob("manifest.json")]
    assert [m["unit"] for m in manifests if m["stage"] == reader and unit in m["inputs"]] == []


@pytest.mark.parametrize("name", ["scorer.json", "hf/model.safetensors", "hf/tokenizer.json"])
def test_scorer_altered_at_the_same_size_is_refused_by_who_asks_it(
    finished_run: Path, tmp_path: Path, name: str
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", before("reliability"))
    part = run / "scorers/smoke/agent-python" / name  # of the group whose source is judged first
    part.write_bytes(flip_middle_byte(part.read_bytes()))
    for refused in at_once(lambda stage: smoke(stage, run, OWN_SCORERS), ("reliability", "score")):
        assert_refused(refused, str(part))
    assert not list(run.glob("r*/smoke/*/part-*.parquet"))


def test_scorer_that_lost_its_weights_is_missed_by_who_asks_it(
    finished_run: Path, tmp_path: Path
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", before("reliability"))
    part = run / "scorers/smoke/text-modules/hf/model.safetensors"
    part.unlink()
    for refused in at_once(lambda stage: smoke(stage, run, OWN_SCORERS), ("reliability", "score")):
        assert_refused(refused, f"{part}: this part is missing")


def test_tokenizer_altered_at_the_same_size_is_refused_by_the_next_source(
    finished_run: Path, tmp_path: Path
) -> None:
    run = copy_stages(finished_run, tmp_path / "run", before("select"))
    shutil.rmtree(run / "tokens")
    tokenizer = run / "tokenizer/tokenizer.json"
    size_bytes = tokenizer.stat().st_size
    # Two tokens change places: "a" gets the id of "b", and the other way round.
    content = json.loads(tokenizer.read_text())
    ids = content["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    tokenizer.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")))
    assert tokenizer.stat().st_size == size_bytes
    assert_refused(smoke("tokenize", run), str(tokenizer))
    assert not (run / "tokens/modules/manifest.json").exists()
