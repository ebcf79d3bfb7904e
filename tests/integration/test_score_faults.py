"""Scoring by an endpoint that fails: one row or one typed failure per record, nothing twice."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml  # OmegaConf brings it
from aiohttp import web
from fake_teacher import (
    Asked,
    FakeTeacher,
    by_record,
    completion,
    error,
    garbage,
    good,
    refusal,
    serving,
    teacher_section,
)
from smoke_runs import Ended, assert_done, assert_refused, ended, mira
from teacher_recipes import (
    NUM_NOTES,
    num_stored,
    part_digests,
    rows,
    run_folder,
    teacher_recipe,
    totals,
    with_given_anchors,
)
from test_disk_full import ON_SMALL_DISK
from test_teacher_faults import IN_FLIGHT, kill_after

from mira_megatron.scoring.answer_store import AnswerStore

RATINGS = "ratings/mira/notes"
KILLS = 5


def template(asked: Asked, text: str) -> web.Response:
    """Repeats the answer template instead of filling it in."""
    return completion(asked.prompt.partition("\n\n")[0])


def one_slot_short(asked: Asked, text: str) -> web.Response:
    """Leaves out the seventh slot."""
    return completion("\n".join(line for line in text.split("\n") if not line.startswith("[A7]")))


def empty(asked: Asked, text: str) -> web.Response:
    """Says nothing."""
    return completion("")


def too_long(asked: Asked, text: str) -> web.Response:
    """Refuses the prompt as vLLM does."""
    words = "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens"
    return web.json_response({"error": {"message": words}}, status=400)


FAULTS = {
    good: "ok",
    template: "unparsed",
    garbage: "unparsed",
    one_slot_short: "partial",
    empty: "failed: no_content",
    too_long: "too_long",
    refusal: "refused",
    error(503, until_attempt=2): "ok",
    error(429, until_attempt=2, **{"Retry-After": "1"}): "ok",
}


@pytest.fixture
def scorer() -> Iterator[FakeTeacher]:
    with serving(FakeTeacher()) as scorer:
        yield scorer


def score_recipe(folder: Path, scorer: FakeTeacher) -> Path:
    path = teacher_recipe(folder, scorer)
    recipe = yaml.safe_load(path.read_text())
    recipe["score"] = teacher_section(scorer, temperature=0.0, top_p=1.0)
    path.write_text(yaml.safe_dump(recipe))
    return with_given_anchors(path)


def test_every_record_has_one_row_or_one_typed_failure(tmp_path: Path, scorer: FakeTeacher) -> None:
    scorer.fault = by_record(*FAULTS)
    recipe = score_recipe(tmp_path, scorer)
    assert_done(mira("score", recipe))
    expected: dict[str, int] = {}
    for prompt, _ in scorer.asked:
        asked = Asked(prompt=prompt, seed=0, attempt=1, api_key="")
        outcome = list(FAULTS.values())[asked.number % len(FAULTS)]
        expected[outcome] = expected.get(outcome, 0) + 1
    assert totals(recipe, RATINGS) == expected
    assert sum(expected.values()) == NUM_NOTES
    ratings = rows(recipe, RATINGS).to_pylist()
    assert len({rating["record_id"] for rating in ratings}) == len(ratings) == NUM_NOTES
    for rating in ratings:
        num_scores = sum(score is not None for score in rating["scores"])
        assert num_scores == {"ok": 15, "partial": 14}.get(rating["status"], 0)
        assert (rating["reason"] is None) == (rating["status"] == "ok")


def test_killed_at_random_points_and_run_again_nothing_is_lost_or_asked_twice(
    tmp_path: Path, scorer: FakeTeacher
) -> None:
    undisturbed = score_recipe(tmp_path / "undisturbed", scorer)
    assert_done(mira("score", undisturbed))
    recipe = score_recipe(tmp_path / "killed", scorer)
    scorer.asked.clear()
    scorer.num_answered, scorer.seconds_per_answer = 0, 0.05
    points = sorted(random.Random(0).sample(range(3, NUM_NOTES - 8), KILLS))
    for num_kills, num_answered in enumerate(points, start=1):
        kill_after(num_answered, scorer, "score", recipe)
        time.sleep(0.2)  # the scorer ends what was in flight
        assert scorer.asked.total() - num_stored(recipe) <= IN_FLIGHT * num_kills
    num_asked, num_kept = scorer.asked.total(), num_stored(recipe)
    scorer.seconds_per_answer = 0.0
    assert_done(mira("score", recipe))
    assert scorer.asked.total() - num_asked == NUM_NOTES - num_kept
    assert part_digests(recipe, RATINGS) == part_digests(undisturbed, RATINGS)


def test_another_run_asks_again_only_for_what_would_be_asked_otherwise(
    tmp_path: Path, scorer: FakeTeacher
) -> None:
    recipe = score_recipe(tmp_path, scorer)
    answers = f"score.answers_folder={tmp_path / 'answers'}"
    assert_done(mira("score", recipe, answers))
    assert scorer.asked.total() == NUM_NOTES
    for folder, change, num_asked in (
        ("again", "score.max_in_flight=2", 0),
        ("small_parts", "ingest.records_per_part=7", 0),
        ("fewer", "sources.notes.max_records=20", 0),
        ("longer_answers", "score.max_tokens=1000", NUM_NOTES),
    ):
        before = scorer.asked.total()
        words = (recipe, answers, f"run_folder={tmp_path / folder}", change)
        for stage in ("ingest", "anchor", "score"):
            assert_done(mira(stage, *words))
        assert scorer.asked.total() - before == num_asked, folder


def test_reparse_reads_the_kept_answers_once_more_and_asks_nobody(
    tmp_path: Path, scorer: FakeTeacher
) -> None:
    scorer.fault = by_record(*FAULTS)
    recipe = score_recipe(tmp_path, scorer)
    words = ("score", recipe, "score.max_attempts=2")
    assert_refused(mira(*words, "--reparse"), "not finished", "without --reparse")
    assert_done(mira(*words))
    num_asked, digests = scorer.asked.total(), part_digests(recipe, RATINGS)
    folder = run_folder(recipe) / RATINGS
    manifest = folder / "manifest.json"
    # As if made by code that read answers in another way.
    written = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**written, "stage_version": 1, "fingerprint": "0" * 32}))
    assert_refused(mira(*words), "stage_version")
    for _ in range(2):
        assert_done(mira(*words, "--reparse"))
        assert part_digests(recipe, RATINGS) == digests
        (aside,) = folder.parent.glob("notes.superseded-*")
        assert json.loads((aside / "manifest.json").read_bytes())["stage_version"] == 1
    assert scorer.asked.total() == num_asked


def test_reparse_without_the_answers_is_refused_and_changes_nothing(
    tmp_path: Path, scorer: FakeTeacher
) -> None:
    recipe = score_recipe(tmp_path, scorer)
    assert_done(mira("score", recipe))
    folder, answers = run_folder(recipe) / RATINGS, run_folder(recipe) / "answers"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    answers.rename(tmp_path / "elsewhere")
    assert_refused(mira("score", recipe, "--reparse"), "Nothing is changed", str(answers))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert list(folder.parent.iterdir()) == [folder]
    assert_done(mira("score", recipe))
    assert scorer.asked.total() == NUM_NOTES


@pytest.mark.parametrize(
    ("room_bytes", "doing"),
    [(16 << 10, "keeping an answer"), (64 << 10, "writing")],  # an answer takes over 2 KiB
)
def test_full_disk_keeps_the_answers_that_fitted_and_the_rest_is_asked_with_room(
    own_mounts: Sequence[str], tmp_path: Path, scorer: FakeTeacher, room_bytes: int, doing: str
) -> None:
    undisturbed = score_recipe(tmp_path / "undisturbed", scorer)
    assert_done(mira("score", undisturbed))
    recipe = score_recipe(tmp_path / "filled", scorer)
    folder = tmp_path / "small"
    shutil.copytree(run_folder(recipe), folder / "run", symlinks=True)
    scorer.asked.clear()
    command = [sys.executable, "-m", "mira_megatron.cli", "score", recipe]
    words = [f"run_folder={folder / 'disk/run'}", "--workers=1"]
    done = ended([*own_mounts, sys.executable, ON_SMALL_DISK, folder, room_bytes, *command, *words])
    assert_done(done)
    said = Ended(**json.loads((folder / "full.json").read_text()))
    assert_refused(said, f"no space left while {doing}", str(folder / "disk/run/"))
    num_asked, num_kept = scorer.asked.total(), len(AnswerStore(folder / "full/answers"))
    assert 0 < num_kept < NUM_NOTES
    assert num_asked - num_kept <= IN_FLIGHT
    assert_done(mira("score", recipe, f"run_folder={folder / 'full'}"))
    assert scorer.asked.total() - num_asked == NUM_NOTES - num_kept
    manifest = json.loads((folder / "full" / RATINGS / "manifest.json").read_bytes())
    digests = {part["path"]: part["digest"] for part in manifest["parts"]}
    assert digests == part_digests(undisturbed, RATINGS)
