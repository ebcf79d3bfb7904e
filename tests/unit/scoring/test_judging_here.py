"""Parts judged by a model that is really run here: what was answered is kept, batch by batch."""

from __future__ import annotations

import dataclasses
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rated_here as rating
import torch
from rated_here import BATCH_SIZE, part_of, rated_here
from tiny_scorer import record, write_tiny_scorer
from transformers import Qwen2ForCausalLM

from mira_megatron.launchers.claims import Claims, this_process
from mira_megatron.records import NUM_SLOTS, RECORD_SCHEMA
from mira_megatron.scoring.answer_store import AnswerStore
from mira_megatron.scoring.completion import Answer
from mira_megatron.scoring.expected_scores import SlotOdds
from mira_megatron.scoring.judge import Judge
from mira_megatron.scoring.judge_config import JudgeConfig
from mira_megatron.scoring.judged_parts import JudgedPart
from mira_megatron.scoring.judging_here import question_keys
from mira_megatron.scoring.stored_answer import Charged, kept
from mira_megatron.shards import write_parquet

NAMES = tuple(f"quality {slot}" for slot in range(NUM_SLOTS))
NUM_RECORDS = 18  # four batches, and half of one


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of loud random weights: every record gets noise of its own, the same every time."""
    folder = tmp_path_factory.mktemp("scorer")
    write_tiny_scorer(folder, NAMES[:2], is_moe=False, num_steps=0)
    model: Any = Qwen2ForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    model.save_pretrained(folder)
    return folder


def texts(count: int, seed: int = 3) -> list[str]:
    rng = random.Random(seed)
    return [f"{number} {record(rng, rng.randint(2, 8))}" for number in range(count)]


def write_records(path: Path, contents: Sequence[str], ids: Sequence[str] = ()) -> JudgedPart:
    rows: list[dict[str, Any]] = [
        {
            **{"record_id": record_id, "content_hash": record_id, "source": "s", "family": "text"},
            **{"text": text, "payload": None, "meta": None, "control_spans": []},
            **{"num_chars": len(text), "origin": "o"},
        }
        for text, record_id in zip(contents, ids or map(str, range(len(contents))), strict=True)
    ]
    write_parquet(path, pa.Table.from_pylist(rows, schema=RECORD_SCHEMA))
    return part_of(path)


def raw(part: JudgedPart) -> list[tuple[str, str]]:
    rows = pq.read_table(part.output, columns=["record_id", "raw"]).to_pylist()
    return [(row["record_id"], row["raw"]) for row in rows]


def test_killed_between_batches_generates_only_what_was_missing(
    scorer: Path, tmp_path: Path
) -> None:
    contents = texts(NUM_RECORDS)
    undisturbed = write_records(tmp_path / "undisturbed" / "records.parquet", contents)
    sizes = rated_here([undisturbed], scorer, NAMES, tmp_path / "other_answers")
    assert sizes == [BATCH_SIZE] * 4 + [2]
    part = write_records(tmp_path / "records.parquet", contents)
    command = [sys.executable, rating.__file__, tmp_path, scorer, ",".join(NAMES), "3"]
    killed = subprocess.run([str(word) for word in command], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not part.output.exists()
    assert rated_here([part], scorer, NAMES, tmp_path / "answers") == [BATCH_SIZE] * 2 + [2]
    assert part.output.read_bytes() == undisturbed.output.read_bytes()
    assert len({answer for _, answer in raw(part)}) > NUM_RECORDS // 2


def test_records_reordered_and_among_others_are_not_generated_again(
    scorer: Path, tmp_path: Path
) -> None:
    contents, answers = texts(NUM_RECORDS), tmp_path / "answers"
    first = write_records(tmp_path / "first.parquet", contents)
    rated_here([first], scorer, NAMES, answers)
    others = [f"{text} alpha" for text in texts(5, seed=4)]
    numbers = [*range(9, NUM_RECORDS), *range(9)]
    grown = write_records(
        tmp_path / "grown.parquet",
        [*others[:2], *(contents[number] for number in numbers), *others[2:]],
        ["x0", "x1", *map(str, numbers), "x2", "x3", "x4"],
    )
    assert rated_here([grown], scorer, NAMES, answers) == [BATCH_SIZE, 1]
    assert [name for name, _ in raw(grown)] == [
        "x0",
        "x1",
        *map(str, numbers),
        "x2",
        "x3",
        "x4",
    ]
    assert dict(raw(first)).items() <= dict(raw(grown)).items()


def test_part_of_a_worker_that_went_meanwhile_is_not_generated_again(
    scorer: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers"
    theirs = write_records(tmp_path / "part-0.parquet", texts(6))
    ours = write_records(tmp_path / "part-1.parquet", texts(5, seed=4))
    copied = write_records(tmp_path / "copy.parquet", texts(6))

    def other_worker() -> None:
        """Answers all of its part, and ends before it is written."""
        if not copied.output.exists():
            rated_here([copied], scorer, NAMES, answers)

    with Claims(tmp_path, this_process()) as gone:
        gone.take(theirs.output.name)
    with Claims(tmp_path, this_process()) as claims:
        sizes = rated_here(
            [theirs, ours], scorer, NAMES, answers, claims=claims, meanwhile=other_worker
        )
    assert sizes == [BATCH_SIZE, 2, BATCH_SIZE, 1]  # the other worker's, and those of our part
    assert raw(theirs) == raw(copied)


def test_reparsed_part_is_made_of_what_is_kept(scorer: Path, tmp_path: Path) -> None:
    contents, answers = [*texts(5), "far too long " * 500], tmp_path / "answers"
    part = write_records(tmp_path / "records.parquet", contents)
    rated_here([part], scorer, NAMES, answers, max_model_len=256)
    before = tmp_path / "before"
    before.mkdir()
    part.output.rename(before / part.output.name)
    assert rated_here([part], scorer, NAMES, answers, earlier=before, max_model_len=256) == []
    assert part.output.read_bytes() == (before / part.output.name).read_bytes()
    statuses = pq.read_table(part.output, columns=["status"])["status"].to_pylist()
    assert [number for number, status in enumerate(statuses) if status == "too_long"] == [5]
    part.output.unlink()
    with pytest.raises(ValueError, match="does not hold the answer"):
        rated_here([part], scorer, NAMES, tmp_path / "other", earlier=before, max_model_len=256)


def test_model_is_not_loaded_where_all_is_known(scorer: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(scorer, model)
    part = write_records(tmp_path / "records.parquet", texts(6))
    rated_here([part], model, NAMES, tmp_path / "answers")
    rows = part.output.read_bytes()
    part.output.unlink()
    # Not among the files by which a model is known, so that only loading it can fail.
    with mock.patch.object(Qwen2ForCausalLM, "from_pretrained", side_effect=OSError("loaded")):
        assert rated_here([part], model, NAMES, tmp_path / "answers") == []
    assert part.output.read_bytes() == rows


def test_answer_with_odds_is_the_same_after_it_was_kept(tmp_path: Path) -> None:
    odds = SlotOdds(
        slot=2, score=7, token=5, before=" ", weights={"7": 1 / 3}, one=0.1, zero_after_one=1e-17
    )
    answer = Answer(key="k", text="7", num_output_tokens=3, is_completion=True, odds=(odds,))
    key = "0" * 32
    for _ in range(2):  # from the journal, and from a segment
        with AnswerStore(tmp_path) as store:
            if key not in store:
                store.put(kept(answer, key=key, model="m", charged=Charged()))
            found = store.known([key])[key]
            assert found.answer("k") == answer
            assert store.charged("m") == Charged()


def test_equal_records_are_generated_once_and_each_has_its_row(
    scorer: Path, tmp_path: Path
) -> None:
    part = write_records(tmp_path / "records.parquet", ["alpha beta"] * 7 + ["gamma"])
    assert rated_here([part], scorer, NAMES, tmp_path / "answers") == [2]
    rows = raw(part)
    assert [name for name, _ in rows] == list(map(str, range(8)))
    assert len({answer for _, answer in rows[:7]}) == 1


def test_record_too_long_is_a_failure_of_its_own_and_is_not_kept(
    scorer: Path, tmp_path: Path
) -> None:
    contents = ["alpha", "alpha " * 200, "beta", "alpha " * 200]
    part = write_records(tmp_path / "records.parquet", contents)
    for sizes in ([2], []):
        part.output.unlink(missing_ok=True)
        found = rated_here([part], scorer, NAMES, tmp_path / "answers", max_model_len=100)
        assert found == sizes
        status = pq.read_table(part.output, columns=["status"])["status"].to_pylist()
        assert [each == "too_long" for each in status] == [False, True, False, True]
    assert rated_here([part], scorer, NAMES, tmp_path / "answers") == []  # the part is there
    store = AnswerStore(tmp_path / "answers")
    assert len(store) == 2
    assert store.charged(scorer.name) == Charged()


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "vllm"},
        {"dtype": "bfloat16"},
        {"max_model_len": 512},
        {"answer_mode": "expected"},
        {"temperature": 0.5, "engine": "vllm"},
        {"top_p": 0.5},
        {"max_tokens": 61},
    ],
)
def test_key_is_another_where_an_answer_may_be(change: dict[str, Any], tmp_path: Path) -> None:
    judge = _judge(tmp_path)
    changed = dataclasses.replace(judge, config=dataclasses.replace(judge.config, **change))
    assert _key(changed) != _key(judge)


def test_key_depends_on_seed_and_files_of_the_model_and_not_on_where_they_are(
    tmp_path: Path,
) -> None:
    judge = _judge(tmp_path / "one")
    assert _key(_judge(tmp_path / "two")) == _key(judge)
    assert _key(_judge(tmp_path / "three", weights=b"others")) != _key(judge)
    assert _key(dataclasses.replace(judge, seed=4)) != _key(judge)
    assert _key(dataclasses.replace(judge, weights="digest")) != _key(judge)
    fast = dataclasses.replace(judge.config, batch_size=1)
    assert _key(dataclasses.replace(judge, config=fast)) == _key(judge)


def _judge(folder: Path, weights: bytes = b"weights") -> Judge:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    config = JudgeConfig(
        engine="transformers", dtype="float32", temperature=0.0, top_p=1.0, max_tokens=60
    )
    return Judge(config=config, seed=3, tokenizer=None, answers=folder, model_folder=folder)


def _key(judge: Judge) -> str:
    return question_keys(judge).key([b"asked"])
